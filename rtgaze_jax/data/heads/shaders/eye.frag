#version 330
//include common.glsl
const float LIMBUS = 0.4875;      // eyes.py has the same numbers
const float IRIS_DEPTH = 0.845;
const float INDEX = 1.3375;
uniform sampler2D iris_map;       // linear: azimuth by radius from pupil to limbus
uniform sampler2D sclera_map;     // linear: azimuth by angle from the limbus
uniform mat3 axes;                // eye to world
uniform vec3 center;
uniform float radius;
uniform float pupil;              // over the iris radius
uniform float still;              // 1 for the tissue around the ball, which does not turn
uniform float side;               // +1 left, -1 right eye: the nose lies at -side * x
uniform float upper[16];          // lid edge heights over x, eyeball radii
uniform float lower[16];
uniform vec2 reach;               // x of the two corners, eyeball radii
uniform float millimetre;         // world units
in vec3 position, normal, rest;
in vec2 uv;
in vec4 mark;
in vec4 ambient;
out vec4 colour;

float lid(float x, bool top) {
    float t = clamp((x - reach.x) / (reach.y - reach.x), 0.0, 1.0) * 15.0;
    int i = int(min(t, 14.0));
    float f = t - float(i);
    return top ? mix(upper[i], upper[i + 1], f) : mix(lower[i], lower[i + 1], f);
}

vec3 fetch_polar(sampler2D map, float row, float turn, float texels) {
    return textureLod(map, vec2(turn, row), clamp(log2(max(texels, 1e-4)), 0.0, 6.0)).rgb;
}

void main() {
    vec3 v = normalize(camera - position), n = normalize(normal);
    vec3 q = rest;
    float rr = length(q.xy);
    float pixel = max(length(dFdx(position)), length(dFdy(position))) / radius;
    float angle = atan(rr, q.z), limbus = asin(LIMBUS);
    float turn = atan(q.y, q.x * side) / (2.0 * PI) + 0.5;
    float out_angle = (angle - limbus) / (radians(115.0) - limbus);
    vec3 sclera = fetch_polar(sclera_map, clamp(out_angle, 0.0, 1.0), turn, pixel * 512.0 / (2.0 * PI * max(rr, 0.2)));
    vec3 base = sclera;
    float iris = 0.0;
    vec3 shine = vec3(0.0);
    if (still < 0.5 && rr < LIMBUS * 1.06 && q.z > 0.0) {
        vec3 vl = transpose(axes) * v, nl = normalize(transpose(axes) * n);
        vec3 ray = refract(-vl, nl, 1.0 / INDEX);
        vec2 hit = q.xy + ray.xy * ((IRIS_DEPTH - q.z) / min(ray.z, -0.05));
        float hr = length(hit) / LIMBUS;
        float edge = (hr - pupil) / (1.0 - pupil);
        float spin = atan(hit.y, hit.x) / (2.0 * PI) + 0.5;
        float texels = pixel * 512.0 / (2.0 * PI * max(hr * LIMBUS, 0.08));
        vec3 tissue = fetch_polar(iris_map, clamp(edge, 0.02, 0.98), spin, texels);
        float soft = max(1.2 * pixel / LIMBUS, 0.012);
        float hole = 1.0 - smoothstep(pupil - soft, pupil + soft, hr);
        // the cornea focuses the key light on the far side of the iris
        vec3 kl = transpose(axes) * key_direction;
        vec2 across = hr > 1e-4 ? hit / (hr * LIMBUS) : vec2(0.0);
        tissue *= 1.0 + 0.8 * max(-dot(across, kl.xy) * hr, 0.0) * max(kl.z, 0.0);
        vec3 inside = mix(tissue, vec3(0.0035), hole);
        float rim = smoothstep(LIMBUS * 0.90, LIMBUS * 1.05, rr);
        base = mix(inside, sclera * mix(0.8, 1.0, rim), rim);
        iris = 1.0 - rim;
    }
    // lids: shade, blush and the tear line
    vec3 d = (position - center) / radius;
    float scale = radius / millimetre / sqrt(max(1.0 - d.y * d.y, 0.2));
    float above = (lid(d.x, true) - d.y) * scale, below = (d.y - lid(d.x, false)) * scale;
    float nose = side > 0.0 ? (d.x - reach.x) : (reach.y - d.x), temple = side > 0.0 ? (reach.y - d.x) : (d.x - reach.x);
    nose *= radius / millimetre;
    temple *= radius / millimetre;
    float shade = (1.0 - 0.62 * exp(-max(above, 0.0) / 1.5)) * (1.0 - 0.30 * exp(-max(below, 0.0) / 0.8));
    shade *= (1.0 - 0.45 * exp(-max(nose, 0.0) / 2.0)) * (1.0 - 0.45 * exp(-max(temple, 0.0) / 2.4));
    float corner = exp(-max(nose - 0.6, 0.0) / 1.9);
    vec3 flesh = vec3(0.40, 0.15, 0.12);
    base = mix(base, flesh * (0.8 + 0.4 * sclera.r), still * smoothstep(0.22, 0.75, corner) * 0.85);
    base *= mix(vec3(1.0), vec3(0.95, 0.76, 0.72), (0.55 * exp(-max(above, 0.0) / 1.0) + 0.6 * exp(-max(below, 0.0) / 0.7) + 0.7 * exp(-max(temple, 0.0) / 2.5)) * (1.0 - iris));

    float lit = key_shadow(position, 0.0010);
    vec3 body = normalize(mix(n, normalize(position - center), iris));
    float ndl = clamp((dot(body, key_direction) + 0.15) / 1.32, 0.0, 1.0);
    vec3 deep = mix(vec3(1.0), vec3(1.04, 0.93, 0.88), 1.0 - shade);
    vec3 light = ambient.rgb * shade * deep + key_colour * ndl * lit * mix(1.0, shade, 0.5);
    vec3 c = base * light / PI;

    vec3 wetn = n;
    // the meniscus of tears along the lower lid tilts the surface up
    float tear = smoothstep(0.75, 0.25, below) * smoothstep(-0.3, 0.05, below);
    wetn = normalize(wetn + vec3(0.0, 0.7, 0.1) * tear);
    float f = fresnel(max(dot(wetn, v), 0.0), 0.025);
    vec3 r = reflect(-v, wetn);
    float clear = smoothstep(0.0, 1.1, above) * smoothstep(-0.55, 0.05, r.y) * smoothstep(-0.2, 0.2, dot(r, normalize(position - center)));
    float blur = mix(2.0, 0.0, smoothstep(1.05, 0.95, rr / LIMBUS) * (1.0 - still));
    vec3 mirror = fetch_environment(r, blur + 2.2 * tear + log2(max(pixel * 14.0, 1.0)));
    c += mirror * f * clear * mix(0.8, 1.0, iris);
    c += key_colour * lit * clear * lobe(wetn, v, key_direction, 0.09) * fresnel(max(dot(normalize(v + key_direction), v), 0.0), 0.025);
    colour = vec4(max(c, 0.0), 1.0);
}
