#version 330
//include common.glsl
uniform vec3 hair_colour;
in vec3 position, tangent, normal;
in float shade, coverage, tip;
in vec4 ambient;
out vec4 colour;
void main() {
    vec3 v = normalize(camera - position), t = normalize(tangent);
    float lit = key_shadow(position, 0.003);
    float tl = dot(t, key_direction);
    float diffuse = sqrt(max(1.0 - tl * tl, 0.0)) * clamp(dot(normal, key_direction) + 0.5, 0.0, 1.0);
    vec3 c = hair_colour * shade * (ambient.rgb + key_colour * lit * diffuse) / PI;
    vec3 h = normalize(v + key_direction);
    float th = dot(t, h);
    c += key_colour * lit * pow(sqrt(max(1.0 - th * th, 0.0)), 60.0) * 0.02 * clamp(dot(normal, key_direction) + 0.3, 0.0, 1.0);
    colour = vec4(max(c, 0.0), coverage);
}
