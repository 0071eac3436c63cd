#version 330
//include common.glsl
uniform float absorb;
uniform float brightest;   // reflections level off below this, so that eyes stay visible
in vec3 position, normal, rest;
in vec2 uv;
in vec4 mark;
in vec4 ambient;
out vec4 colour;
void main() {
    vec3 v = normalize(camera - position), n = normalize(normal);
    if (dot(n, v) < 0.0) n = -n;
    float f = fresnel(max(dot(n, v), 0.0), 0.022);
    // front and back surface
    f = 2.0 * f / (1.0 + f);
    vec3 c = fetch_environment(reflect(-v, n), 0.5) * f * step(-0.25, dot(reflect(-v, n), vec3(0.0, 0.0, 1.0)));
    c = c / (1.0 + c / brightest);
    colour = vec4(c, 1.0 - (1.0 - f) * (1.0 - absorb));
}
