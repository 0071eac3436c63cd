// Light shared by all surfaces. Linear RGB; world units.
const float PI = 3.14159265;
uniform vec3 camera;             // position
uniform vec3 key_direction;
uniform vec3 key_colour;
uniform float key_softness;      // radius of the penumbra
uniform mat4 shadow_matrix;
uniform sampler2DShadow shadow_map;
uniform sampler2D environment;   // latitude (0 = up) by longitude

vec3 fetch_environment(vec3 d, float lod) {
    vec2 uv = vec2(atan(d.x, d.z) / (2.0 * PI) + 0.5, acos(clamp(d.y, -1.0, 1.0)) / PI);
    return textureLod(environment, uv, lod).rgb;
}

float key_shadow(vec3 p, float bias) {
    vec3 q = (shadow_matrix * vec4(p, 1.0)).xyz * 0.5 + 0.5;
    float turn = 6.2832 * fract(52.9829189 * fract(dot(gl_FragCoord.xy, vec2(0.06711056, 0.00583715))));
    float lit = 0.0;
    for (int i = 0; i < 12; i++) {
        float r = sqrt((float(i) + 0.5) / 12.0) * key_softness;
        float a = float(i) * 2.39996 + turn;
        lit += texture(shadow_map, vec3(q.xy + r * vec2(cos(a), sin(a)) * 0.8, q.z - bias - r * 0.25));
    }
    return lit / 12.0;
}

float fresnel(float cosine, float f0) {
    float m = clamp(1.0 - cosine, 0.0, 1.0);
    return f0 + (1.0 - f0) * m * m * m * m * m;
}

// Cook-Torrance lobe times n.l, without Fresnel
float lobe(vec3 n, vec3 v, vec3 l, float roughness) {
    vec3 h = normalize(v + l);
    float nh = clamp(dot(n, h), 0.0, 1.0), nv = max(dot(n, v), 0.05), nl = max(dot(n, l), 0.0);
    float a2 = roughness * roughness;
    float d = nh * nh * (a2 - 1.0) + 1.0;
    float k = roughness * 0.5;
    return a2 / (PI * d * d) / ((nv * (1.0 - k) + k) * (nl * (1.0 - k) + k) * 4.0) * nl;
}
