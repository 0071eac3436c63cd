#version 330
uniform sampler2D picture;
uniform float threshold;   // of alpha; 0 for opaque meshes
in vec2 uv;
void main() {
    if (threshold > 0.0 && texture(picture, uv).a < threshold) discard;
}
