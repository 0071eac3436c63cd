#version 330
//include common.glsl
uniform sampler2D picture;    // sRGB albedo of the head's chart
uniform sampler2D detail;     // pores, mottling, freckles, fine lines
uniform sampler2D lips_mask;
uniform sampler2D lids_mask;
uniform vec3 eye_shadow;
uniform float liner;
uniform vec3 tone;            // mean albedo of this face
uniform vec3 mean;            // mean albedo of the texture's face
uniform vec3 lips;
uniform float pores;
uniform float oil;
uniform float redness;
uniform float freckles;
uniform float stubble;
uniform vec3 hair_colour;
in vec3 position, normal, rest;
in vec2 uv;
in vec4 mark;       // lid edge, waterline, inside the mouth, scalp
in vec4 ambient;
out vec4 colour;
void main() {
    vec3 n0 = normalize(normal), v = normalize(camera - position);
    vec2 tile = uv * vec2(8.5, 16.0);
    vec4 fine = texture(detail, tile);
    vec4 broad = texture(detail, tile * 0.23 + 0.37);
    float lip = texture(lips_mask, uv).r * (1.0 - mark.z);
    float lid = mark.x, wet = mark.y;

    // bump from the detail map by screen derivatives
    vec3 px = dFdx(position), py = dFdy(position);
    float h = fine.r * 0.7 + 0.3 * fine.a + 0.8 * broad.r;
    float hx = dFdx(h), hy = dFdy(h);
    vec3 r1 = cross(py, n0), r2 = cross(n0, px);
    float det = dot(px, r1);
    vec3 slope = sign(det) * (hx * r1 + hy * r2);
    float depth = 0.00045 * pores * (1.0 - 0.8 * wet) * (1.0 - 0.6 * lid);
    vec3 n = normalize(abs(det) * n0 - depth * slope + 1e-9 * n0);

    vec3 albedo = tone * pow(pow(texture(picture, uv).rgb, vec3(2.2)) / mean, vec3(0.85));
    float light_lip = dot(albedo, vec3(0.4, 0.4, 0.2)) / dot(tone, vec3(0.4, 0.4, 0.2));
    albedo = mix(albedo, tone * vec3(0.92, 0.58, 0.58) * mix(0.75, light_lip, 0.5) * lips, lip * 0.75);
    float blood = (fine.g * 0.5 + broad.g - 0.75) * (1.0 - mark.w);
    albedo *= exp(-blood * redness * vec3(0.12, 0.42, 0.38) - (1.0 - fine.r) * 0.16 * pores * vec3(0.7, 1.0, 1.0) + 0.08 * pores * vec3(0.7, 1.0, 1.0));
    float spot = clamp(fine.b * 1.5, 0.0, 1.0) * smoothstep(0.35, 0.65, broad.g) * freckles * smoothstep(6.4, 6.9, rest.y) * (1.0 - lip);
    albedo *= exp(-spot * vec3(0.45, 0.95, 1.25));
    // lid edge: a little redder; the wet rim is pink mucosa
    albedo *= mix(vec3(1.0), vec3(0.86, 0.70, 0.68), lid * (1.0 - wet) * 0.85);
    albedo *= mix(vec3(1.0), vec3(0.60, 0.50, 0.47), smoothstep(0.55, 1.0, lid) * (1.0 - wet));  // roots of the lashes
    albedo = mix(albedo, albedo * vec3(1.0, 0.62, 0.58) * 0.9 + vec3(0.10, 0.03, 0.03), wet);
    albedo *= mix(vec3(1.0), eye_shadow, texture(lids_mask, uv).r);
    albedo *= mix(1.0, 0.12, liner * smoothstep(0.35, 0.9, lid) * (1.0 - 0.7 * wet));
    // shadow of shaved hair
    float shave = stubble * clamp(mark.w, 0.0, 1.0);
    albedo = mix(albedo, albedo * 0.45 + hair_colour * 0.3, clamp(shave * (0.35 + 0.9 * (0.6 - fine.r)), 0.0, 0.8));
    if (mark.z > 0.5) albedo = vec3(0.24, 0.055, 0.05);

    float lit = key_shadow(position, 0.0012);
    float ndl = dot(n, key_direction), ndl0 = dot(n0, key_direction);
    // light bleeds through skin: farther in red, and past the shadow's edge
    vec3 wrap = vec3(0.30, 0.13, 0.08);
    vec3 cosine = vec3(mix(ndl0, ndl, 0.35), mix(ndl0, ndl, 0.7), ndl);
    vec3 diffuse = clamp((cosine + wrap) / ((1.0 + wrap) * (1.0 + wrap)), 0.0, 1.0);
    vec3 bleed = vec3(pow(lit, 0.6), lit, pow(lit, 1.1));
    vec3 occlusion = mix(vec3(1.0), vec3(1.10, 1.0, 0.96), 1.0 - ambient.a);
    vec3 light = ambient.rgb * occlusion + key_colour * diffuse * bleed;
    vec3 c = albedo * light / PI;
    if (mark.z > 0.5) c *= ambient.a * ambient.a;

    float rough = mix(mix(0.42, 0.34, lip), 0.16, wet);
    float f0 = mix(0.028, 0.035, wet);
    vec3 hv = normalize(v + key_direction);
    float key = (0.7 * lobe(n, v, key_direction, rough) + 0.3 * lobe(n, v, key_direction, rough * 0.5)) * fresnel(dot(hv, v), f0);
    float mirror = fresnel(max(dot(n, v), 0.0), f0) * mix(0.55, 0.9, wet);
    vec3 around = fetch_environment(reflect(-v, n), mix(4.2, 2.2, wet)) * mirror * ambient.a * ambient.a;
    float gloss = oil * (1.0 - 0.5 * mark.w) * (mark.z > 0.5 ? 0.0 : 1.0) * (0.75 + 0.5 * broad.g);
    c += max(gloss, 0.9 * wet) * (key_colour * lit * key + around);
    colour = vec4(max(c, 0.0), 1.0);
}
