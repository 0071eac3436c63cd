#version 330
uniform sampler2D picture;
uniform vec2 origin, size;    // window of the backdrop
in vec2 place;
out vec4 colour;
void main() {
    colour = vec4(texture(picture, origin + place * size).rgb, 0.0);
}
