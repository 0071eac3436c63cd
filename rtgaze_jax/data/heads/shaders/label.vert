#version 330
uniform mat4 projection;
uniform float nearer;   // clip depth taken off, so that clothes win over the skin below them
in vec3 in_position;
in vec2 in_uv;
in vec4 in_mark;
out vec3 position;
out vec2 uv;
out vec4 mark;
void main() {
    position = in_position;
    uv = in_uv;
    mark = in_mark;
    gl_Position = projection * vec4(in_position, 1.0);
    gl_Position.z -= nearer * gl_Position.w;
}
