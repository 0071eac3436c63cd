#version 330
//include common.glsl
uniform sampler2D picture;
uniform vec3 hair_colour;
uniform float mean;          // mean luminance of the texture
uniform float threshold;     // core against fringe
uniform float fringe;        // 0: draw the core, 1: draw the fringe
in vec3 position, normal, rest;
in vec2 uv;
in vec4 mark;
in vec4 ambient;
out vec4 colour;
float hash(float x) { return fract(sin(x * 12.9898) * 43758.547); }
float streak(float x) { return mix(hash(floor(x)), hash(floor(x) + 1.0), smoothstep(0.0, 1.0, fract(x))); }

void main() {
    vec4 t = texture(picture, uv);
    t.a *= 1.0 - mark.x;
    if (fringe < 0.5 ? t.a < threshold : (t.a >= threshold || t.a < 0.03)) discard;
    vec3 v = normalize(camera - position), n = normalize(normal);
    if (dot(n, v) < 0.0) n = -n;
    float shade = dot(pow(t.rgb, vec3(2.2)), vec3(0.3, 0.59, 0.11)) / mean;
    shade = 0.35 + 1.45 * shade / (1.2 + shade);
    // hair falls along the head: down the slope of the surface, strand by strand a little differently
    vec3 fall = vec3(0.35 * (shade - 1.0), -1.0, -0.25);
    vec3 along = normalize(fall - n * dot(fall, n) + 1e-6);
    float lane = atan(position.x, position.z + 0.24);   // strands run down from the crown
    shade *= 0.70 + 0.32 * streak(lane * 150.0 + 3.0 * uv.y) + 0.28 * streak(lane * 52.0 + 11.0);
    vec3 albedo = hair_colour * shade;
    float lit = key_shadow(position, 0.004);
    float ndl = clamp((dot(n, key_direction) + 0.35) / 1.8, 0.0, 1.0);
    vec3 c = albedo * (ambient.rgb * mix(0.55, 1.0, ambient.a) + key_colour * ndl * lit) / PI * 1.3;
    vec3 h = normalize(v + key_direction);
    float th = dot(along, h);
    float s = sqrt(max(1.0 - th * th, 0.0));
    float glint = pow(s, 90.0) * 0.022 + pow(s, 22.0) * 0.10 * max(hair_colour.r, 0.012);
    c += key_colour * lit * glint * shade * clamp(dot(n, key_direction) + 0.3, 0.0, 1.0);
    c += fetch_environment(reflect(-v, n), 4.5) * (0.010 + 0.05 * fresnel(max(dot(n, v), 0.0), 0.0)) * ambient.a * ambient.a * shade;
    colour = vec4(max(c, 0.0), fringe < 0.5 ? 1.0 : t.a / threshold);
}
