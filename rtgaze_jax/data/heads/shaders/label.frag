#version 330
// Ray length and part of the surface at the pixel's centre.
uniform sampler2D picture;
uniform float threshold;
uniform float part;
uniform float inner_part;   // where mark.z > 0.5 (the inside of the mouth)
uniform vec3 camera;
in vec3 position;
in vec2 uv;
in vec4 mark;
layout(location = 0) out float ray;
layout(location = 1) out float id;
void main() {
    if (threshold > 0.0 && texture(picture, uv).a * (1.0 - mark.x) < threshold) discard;
    ray = length(position - camera);
    id = (mark.z > 0.5 ? inner_part : part) / 255.0;
}
