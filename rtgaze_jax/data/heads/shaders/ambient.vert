#version 330
// Irradiance of every vertex from the ambient light, by looking its point up in depth maps from DIRECTIONS sides.
const int DIRECTIONS = 40;
const int COLUMNS = 8;
const int ROWS = 5;
uniform vec3 directions[DIRECTIONS];
uniform vec3 rights[DIRECTIONS];
uniform vec3 radiance[DIRECTIONS];
uniform float extent;      // half size of a depth map, world units
uniform vec3 focus;        // centre of the depth maps
uniform float offset;      // lift along the normal against self shadowing
uniform float bias;
uniform float wrap;        // light from behind the surface, for hair
uniform vec4 lift;         // xyz: eyeball centre, w: height above the ball (0: not an eyeball)
uniform sampler2DShadow atlas;
in vec3 in_position;
in vec3 in_normal;
out vec4 out_ambient;
void main() {
    vec3 n = normalize(in_normal);
    vec3 p = in_position + n * offset;
    if (lift.w > 0.0) p = in_position + normalize(in_position - lift.xyz) * lift.w;
    vec3 light = vec3(0.0);
    float open = 0.0, total = 0.0;
    for (int i = 0; i < DIRECTIONS; i++) {
        vec3 d = directions[i];
        float c = max((dot(n, d) + wrap) / (1.0 + wrap), 0.0);
        if (c <= 0.0) continue;
        vec3 o = p - focus;
        vec2 q = vec2(dot(o, rights[i]), dot(o, cross(d, rights[i]))) / extent;
        vec2 tile = vec2(i % COLUMNS, i / COLUMNS);
        vec2 uv = (tile + clamp(q * 0.5 + 0.5, 0.01, 0.99)) / vec2(COLUMNS, ROWS);
        float depth = 0.5 - 0.5 * dot(o, d) / extent;
        float seen = texture(atlas, vec3(uv, depth - bias));
        light += radiance[i] * c * seen;
        open += c * seen;
        total += c;
    }
    out_ambient = vec4(light * 12.566371 / float(DIRECTIONS), open / max(total, 1e-4));
}
