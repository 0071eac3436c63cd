#version 330
uniform mat4 projection;
uniform vec3 camera;
uniform float pixel;        // world units per (sub)pixel at unit distance
uniform float least;        // smallest drawn width, pixels
in vec3 in_position;
in vec3 in_tangent;
in vec3 in_normal;
in float in_width;
in float in_side;
in float in_shade;
in float in_tip;
in vec4 in_ambient;
out vec3 position, tangent, normal;
out float shade, coverage, tip;
out vec4 ambient;
void main() {
    vec3 toward = camera - in_position;
    float distance = length(toward);
    vec3 across = cross(in_tangent, toward / distance);
    across /= max(length(across), 1e-7);
    float smallest = least * pixel * distance;
    float width = max(in_width, smallest);
    coverage = in_width / width;
    position = in_position + across * in_side * width * 0.5;
    tangent = normalize(in_tangent);
    normal = in_normal;
    shade = in_shade;
    tip = in_tip;
    ambient = in_ambient;
    gl_Position = projection * vec4(position, 1.0);
}
