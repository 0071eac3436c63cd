#version 330
uniform sampler2D picture;
uniform float threshold;   // of alpha; 0 for opaque meshes
in vec2 uv;
in float cut;      // share of the alpha taken away
void main() {
    if (threshold > 0.0 && texture(picture, uv).a * (1.0 - cut) < threshold) discard;
}
