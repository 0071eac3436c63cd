#version 330
uniform mat4 projection;
uniform float nearer;   // clip depth taken off, so that clothes win over the skin below them
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec3 in_rest;
in vec4 in_mark;
in vec4 in_ambient;   // irradiance rgb, openness
out vec3 position, normal, rest;
out vec2 uv;
out vec4 mark, ambient;
void main() {
    position = in_position;
    normal = in_normal;
    uv = in_uv;
    rest = in_rest;
    mark = in_mark;
    ambient = in_ambient;
    gl_Position = projection * vec4(in_position, 1.0);
    gl_Position.z -= nearer * gl_Position.w;
}
