#version 330
//include common.glsl
uniform sampler2D picture;
uniform vec3 tint;
uniform float gloss;       // roughness of the clear coat is 0.35 - 0.25 gloss
uniform float metal;
uniform float cavity;      // darkening where the light cannot get in
in vec3 position, normal, rest;
in vec2 uv;
in vec4 mark;
in vec4 ambient;
out vec4 colour;
void main() {
    vec3 v = normalize(camera - position), n = normalize(normal);
    if (dot(n, v) < 0.0) n = -n;
    vec3 albedo = pow(texture(picture, uv).rgb, vec3(2.2)) * tint;
    float lit = key_shadow(position, 0.0015);
    vec3 light = ambient.rgb * mix(1.0, ambient.a, cavity) + key_colour * clamp(dot(n, key_direction), 0.0, 1.0) * lit;
    vec3 c = albedo * light / PI * (1.0 - 0.8 * metal);
    vec3 f0 = mix(vec3(0.04), albedo, metal);
    float m = fresnel(max(dot(n, v), 0.0), 0.0);
    vec3 f = f0 + (1.0 - f0) * m;
    float rough = 0.40 - 0.28 * gloss;
    c += gloss * f * (key_colour * lit * lobe(n, v, key_direction, rough) + fetch_environment(reflect(-v, n), 4.0 - 2.5 * gloss) * ambient.a);
    colour = vec4(max(c, 0.0), 1.0);
}
