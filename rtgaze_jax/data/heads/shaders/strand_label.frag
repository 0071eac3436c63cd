#version 330
uniform float part;
uniform vec3 camera;
in vec3 position, tangent, normal;
in float shade, coverage, tip;
in vec4 ambient;
layout(location = 0) out float ray;
layout(location = 1) out float id;
void main() {
    if (coverage < 0.12) discard;
    ray = length(position - camera);
    id = part / 255.0;
}
