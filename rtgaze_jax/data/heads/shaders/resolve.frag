#version 330
// Exposure, white balance, tone curve and anti-aliasing; the part goes into alpha.
uniform sampler2D scene;
uniform sampler2D parts;
uniform int factor;
uniform vec3 gain;          // exposure times white balance
uniform float contrast;
uniform float saturation;
uniform float lift;
in vec2 place;
out vec4 colour;
vec3 develop(vec3 c) {
    c = max(c * gain, 0.0);
    c = min(c, vec3(64.0));
    vec3 over = max(c - 0.55, 0.0);
    c = min(c, vec3(0.55)) + 0.45 * (1.0 - exp(-over / 0.45));
    c = mix(vec3(dot(c, vec3(0.2126, 0.7152, 0.0722))), c, saturation);
    c = pow(clamp(c, 0.0, 1.0), vec3(1.0 / 2.2));
    c = mix(c, c * c * (3.0 - 2.0 * c), contrast);
    return lift + (1.0 - lift) * c;
}
void main() {
    ivec2 pixel = ivec2(gl_FragCoord.xy);
    vec3 sum = vec3(0.0);
    for (int y = 0; y < factor; y++)
        for (int x = 0; x < factor; x++) sum += develop(texelFetch(scene, pixel * factor + ivec2(x, y), 0).rgb);
    colour = vec4(sum / float(factor * factor), texelFetch(parts, pixel, 0).r);
}
