"use strict";
// Draws Gaussian splats with WebGL 2: every Gaussian is a quad that is as large as its projection, drawn from far to near.

const facts = JSON.parse(document.getElementById("facts").textContent);
const canvas = document.getElementById("view");
const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, preserveDrawingBuffer: true });
const SIZE = 2048; // Texels per row of the texture of Gaussians.
const TEXELS = 3; // Texels per Gaussian: position and color; covariance in two.

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
uniform highp sampler2D gaussians;
uniform mat4 view;
uniform vec2 focal;
uniform vec2 viewport;
uniform float near;
in vec2 corner;
in uint index;
out vec2 offset;
out vec4 color;
vec4 texel(uint at) { return texelFetch(gaussians, ivec2(int(at % ${SIZE}u), int(at / ${SIZE}u)), 0); }
void main() {
  vec4 first = texel(index * ${TEXELS}u), second = texel(index * ${TEXELS}u + 1u), third = texel(index * ${TEXELS}u + 2u);
  vec3 p = (view * vec4(first.xyz, 1.0)).xyz;
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  if (p.z < near) return;
  mat3 covariance = mat3(second.x, second.y, second.z, second.y, second.w, third.x, second.z, third.x, third.y);
  // Linearized projection, with the direction limited as in the rasterizer: far outside it means nothing.
  vec2 limit = 1.3 * 0.5 * viewport / focal;
  vec2 direction = clamp(p.xy / p.z, -limit, limit);
  mat3 jacobian = mat3(focal.x / p.z, 0.0, 0.0, 0.0, focal.y / p.z, 0.0,
                       -focal.x * direction.x / p.z, -focal.y * direction.y / p.z, 0.0);
  mat3 to_pixels = jacobian * mat3(view);
  mat3 projected = to_pixels * covariance * transpose(to_pixels);
  float a = projected[0][0] + 0.3, b = projected[0][1], c = projected[1][1] + 0.3;
  float mean = 0.5 * (a + c), spread = length(vec2(0.5 * (a - c), b));
  float large = mean + spread, small = max(mean - spread, 0.1);
  vec2 axis = abs(b) < 1e-6 ? (a >= c ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(b, large - a));
  vec2 long_axis = min(sqrt(large), 1024.0) * axis, short_axis = min(sqrt(small), 1024.0) * vec2(-axis.y, axis.x);
  uint packed = floatBitsToUint(first.w);
  color = vec4(uvec4(packed, packed >> 8, packed >> 16, packed >> 24) & 255u) / 255.0;
  // Beyond this many standard deviations nothing is left of a byte.
  float reach = min(sqrt(2.0 * log(max(color.a * 255.0, 1.0001))), 3.4);
  offset = corner * reach;
  vec2 center = focal * p.xy / p.z;
  vec2 pixel = center + offset.x * long_axis + offset.y * short_axis;
  gl_Position = vec4(2.0 * pixel.x / viewport.x, -2.0 * pixel.y / viewport.y, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
in vec4 color;
out vec4 result;
void main() {
  float alpha = min(color.a * exp(-0.5 * dot(offset, offset)), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(color.rgb * alpha, alpha);
}`;

// ---- The Gaussians: 32 bytes each, as in a .splat file; covariances are worked out here. ----
function decoded(text) {
  const bytes = atob(text.trim());
  const array = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) array[i] = bytes.charCodeAt(i);
  return array.buffer;
}

function texture_of(buffer) {
  const count = buffer.byteLength / 32, floats = new Float32Array(buffer), words = new Uint32Array(buffer);
  const bytes = new Uint8Array(buffer), rows = Math.max(1, Math.ceil((count * TEXELS) / SIZE));
  const data = new Float32Array(SIZE * rows * 4), as_words = new Uint32Array(data.buffer), means = new Float32Array(count * 3);
  for (let i = 0; i < count; i++) {
    const from = 8 * i, to = 4 * TEXELS * i;
    for (let k = 0; k < 3; k++) data[to + k] = means[3 * i + k] = floats[from + k];
    as_words[to + 3] = words[from + 6];
    let [w, x, y, z] = [0, 1, 2, 3].map((k) => (bytes[32 * i + 28 + k] - 128) / 128);
    const length = Math.hypot(w, x, y, z) || 1;
    w /= length; x /= length; y /= length; z /= length;
    const s = [floats[from + 3], floats[from + 4], floats[from + 5]];
    const r = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z), 1 - 2 * (x * x + z * z),
               2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)];
    const covariance = (a, b) => [0, 1, 2].reduce((sum, k) => sum + r[3 * a + k] * r[3 * b + k] * s[k] * s[k], 0);
    data.set([covariance(0, 0), covariance(0, 1), covariance(0, 2), covariance(1, 1)], to + 4);
    data.set([covariance(1, 2), covariance(2, 2)], to + 8);
  }
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, SIZE, rows, 0, gl.RGBA, gl.FLOAT, data);
  return { count, means };
}

function program_of(vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}

// ---- Far to near, by counting depths in 65536 steps. ----
function sorted_into(order, means, count, row) {
  let least = Infinity, most = -Infinity;
  const depths = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const depth = row[0] * means[3 * i] + row[1] * means[3 * i + 1] + row[2] * means[3 * i + 2];
    depths[i] = depth;
    if (depth < least) least = depth;
    if (depth > most) most = depth;
  }
  const steps = 65535 / Math.max(most - least, 1e-12), starts = new Uint32Array(65537);
  for (let i = 0; i < count; i++) starts[65535 - Math.floor((depths[i] - least) * steps) + 1]++;
  for (let i = 1; i <= 65536; i++) starts[i] += starts[i - 1];
  for (let i = 0; i < count; i++) order[starts[65535 - Math.floor((depths[i] - least) * steps)]++] = i;
}

// ---- The camera: OpenCV's axes, so y points down; it turns around a point before it. ----
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const scaled = (a, s) => a.map((value) => value * s);
const plus = (a, b) => a.map((value, k) => value + b[k]);
const unit = (a) => scaled(a, 1 / (Math.hypot(...a) || 1));

const camera = { position: [0, 0, 0], right: [1, 0, 0], down: [0, 1, 0], forward: [0, 0, 1], distance: 1, fov_y: 0.8 };
let shown = 0, dirty = true;

function look_from(index) {
  const given = facts.cameras[index], at = (row, column) => given.T_world_cam[row][column];
  shown = index;
  Object.assign(camera, {
    position: [at(0, 3), at(1, 3), at(2, 3)], right: [at(0, 0), at(1, 0), at(2, 0)], down: [at(0, 1), at(1, 1), at(2, 1)],
    forward: [at(0, 2), at(1, 2), at(2, 2)], fov_y: given.fov_y, distance: given.distance,
  });
  document.getElementById("camera").textContent = given.name;
  dirty = true;
}

function turned(yaw, pitch) {
  const target = plus(camera.position, scaled(camera.forward, camera.distance));
  // The horizon stays level: yaw is about the scene's own vertical.
  const rotate = (v, axis, angle) => plus(plus(scaled(v, Math.cos(angle)), scaled(cross(axis, v), Math.sin(angle))),
                                          scaled(axis, dot(axis, v) * (1 - Math.cos(angle))));
  let forward = rotate(camera.forward, facts.up, yaw);
  const right = rotate(camera.right, facts.up, yaw), tilted = rotate(forward, right, pitch);
  if (Math.abs(dot(tilted, facts.up)) < 0.98) forward = tilted;
  camera.forward = unit(forward);
  camera.right = unit(plus(right, scaled(camera.forward, -dot(right, camera.forward))));
  camera.down = cross(camera.forward, camera.right);
  camera.position = plus(target, scaled(camera.forward, -camera.distance));
  dirty = true;
}

function moved(right, down) {
  const pace = (2 * camera.distance * Math.tan(camera.fov_y / 2)) / canvas.clientHeight;
  camera.position = plus(camera.position, plus(scaled(camera.right, -right * pace), scaled(camera.down, -down * pace)));
  dirty = true;
}

function nearer(factor) {
  const distance = Math.min(Math.max(camera.distance * factor, facts.radius * 1e-3), facts.radius * 50);
  camera.position = plus(camera.position, scaled(camera.forward, camera.distance - distance));
  camera.distance = distance;
  dirty = true;
}

function listen() {
  const pointers = new Map();
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    if (others.length) {
      const [x, y] = others[0];
      nearer(Math.hypot(before[0] - x, before[1] - y) / Math.max(1, Math.hypot(event.clientX - x, event.clientY - y)));
      moved(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 6) moved(dx, dy);
    else turned(-dx * 0.005 * Math.sign(dot(camera.down, scaled(facts.up, -1)) || 1), dy * 0.005);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); nearer(Math.exp(event.deltaY * 0.001)); }, { passive: false });
  if (facts.cameras.length < 2) for (const id of ["before", "after"]) document.getElementById(id).hidden = true;
  const step = (by) => look_from((shown + by + facts.cameras.length) % facts.cameras.length);
  document.getElementById("before").onclick = () => step(-1);
  document.getElementById("after").onclick = () => step(1);
  window.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  window.addEventListener("resize", () => (dirty = true));
}

function main() {
  if (!gl) {
    document.getElementById("said").textContent = "This browser has no WebGL 2: open the page in a current one.";
    return;
  }
  const { count, means } = texture_of(decoded(document.getElementById("splats").textContent));
  const program = program_of(VERTEX, FRAGMENT), order = new Uint32Array(count), place = (name) => gl.getUniformLocation(program, name);
  gl.useProgram(program);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  const corner = gl.getAttribLocation(program, "corner"), index = gl.getAttribLocation(program, "index");
  gl.enableVertexAttribArray(corner);
  gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
  const indices = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, indices);
  gl.enableVertexAttribArray(index);
  gl.vertexAttribIPointer(index, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(index, 1);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.clearColor(...facts.background, 1);

  function draw() {
    if (dirty) {
      dirty = false;
      const scale = Math.min(window.devicePixelRatio || 1, 2);
      const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      gl.viewport(0, 0, width, height);
      const { position: p, right: r, down: d, forward: f } = camera;
      gl.uniformMatrix4fv(place("view"), false, [r[0], d[0], f[0], 0, r[1], d[1], f[1], 0, r[2], d[2], f[2], 0,
                                                 -dot(r, p), -dot(d, p), -dot(f, p), 1]);
      const focal = height / 2 / Math.tan(camera.fov_y / 2);
      gl.uniform2f(place("focal"), focal, focal);
      gl.uniform2f(place("viewport"), width, height);
      gl.uniform1f(place("near"), facts.near);
      sorted_into(order, means, count, f);
      gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
      document.body.dataset.drawn = String(count);
    }
    requestAnimationFrame(draw);
  }
  listen();
  look_from(0);
  draw();
}

main();
