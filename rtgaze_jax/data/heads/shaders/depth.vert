#version 330
uniform mat4 projection;
in vec3 in_position;
in vec2 in_uv;
in vec4 in_mark;
out vec2 uv;
out float cut;
void main() {
    uv = in_uv;
    cut = in_mark.x;
    gl_Position = projection * vec4(in_position, 1.0);
}
