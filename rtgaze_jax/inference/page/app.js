"use strict";
// One picture, one target. Requests never pile up: while one is under way only the latest wish is kept.

const $ = (id) => document.getElementById(id);
const DEGREES = 180 / Math.PI;
const REACH = 1.2; // the target lies on a plane this many face sizes before the eyes
const BYTES = { photo: 32 * 2 ** 20, video: 2 ** 30 }; // the server checks them as well
const LIMITS = { pitch: 30, yaw: 45 };
const gaze = { pitch: 0, yaw: 0 };
let faces = [];
let face = 0;
let aspect = 1; // height / width of the photo
let camera = null;

/** Tells an error, or with `note` something less. */
function say(text, note = false) {
  $("message").classList.toggle("note", note);
  $("message").hidden = !text;
  $("message").textContent = text || "";
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `the server answered ${answer.status}`);
  }
  return answer;
}

const post = (path, value) => call(path, { method: "POST", body: JSON.stringify(value) });

/** A function that runs `work` for the latest call only, never twice at a time. */
function latest(work) {
  let running = false, again = false;
  return async function run() {
    if (running) { again = true; return; }
    running = true;
    try {
      do { again = false; await work(); } while (again);
    } catch (error) {
      say(error.message);
    } finally {
      running = false;
    }
  };
}

function show(image, blob) {
  const old = image.src;
  image.src = URL.createObjectURL(blob);
  if (old.startsWith("blob:")) image.addEventListener("load", () => URL.revokeObjectURL(old), { once: true });
}

const wish = () => ({ face: face + 1, pitch: gaze.pitch, yaw: gaze.yaw, strength: $("strength").value / 100 });

const redirect = latest(async () => {
  if (!faces.length) return;
  const waiting = setTimeout(() => { $("busy").hidden = false; }, 300);
  try {
    const answer = await post("/api/redirect", wish());
    show($("after"), await answer.blob());
    const about = JSON.parse(answer.headers.get("X-About") || "{}");
    $("picture").dataset.gaze = (about.gaze || []).join(" ");
    say(about.note, true);
  } finally {
    clearTimeout(waiting);
    $("busy").hidden = true;
  }
  look();
});

const look = latest(async () => {
  if (!faces.length) return;
  const view = { left: +$("left").value, up: +$("up").value, depth: $("depth").checked };
  const answer = await post("/api/view", { ...wish(), ...view });
  show($("view-image"), await answer.blob());
  $("view-image").hidden = false;
});

// --- the target ---------------------------------------------------------------------------------------------------

const clamp = (x, limit) => Math.min(Math.max(x, -limit), limit);
const centre = () => faces[face] || { x: 0.5, y: 0.45 * aspect, size: 0.35 };

function place() {
  const c = centre(), reach = REACH * c.size;
  const x = c.x - Math.tan(gaze.yaw / DEGREES) * reach, y = c.y - Math.tan(gaze.pitch / DEGREES) * reach;
  const inside = { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y / aspect, 0), 1) };
  $("target").style.left = `${100 * inside.x}%`;
  $("target").style.top = `${100 * inside.y}%`;
  const line = $("ray").firstElementChild;
  line.setAttribute("x1", `${100 * c.x}%`);
  line.setAttribute("y1", `${100 * c.y / aspect}%`);
  line.setAttribute("x2", `${100 * inside.x}%`);
  line.setAttribute("y2", `${100 * inside.y}%`);
  const side = gaze.yaw === 0 && gaze.pitch === 0 ? "into the camera" : `pitch ${gaze.pitch}, yaw ${gaze.yaw} degrees`;
  $("target").setAttribute("aria-valuenow", gaze.yaw);
  $("target").setAttribute("aria-valuetext", side);
  for (const name of ["pitch", "yaw"]) {
    $(name).value = gaze[name];
    $(`${name}-out`).textContent = `${gaze[name]}°`;
  }
}

function aim(pitch, yaw) {
  gaze.pitch = Math.round(clamp(pitch, LIMITS.pitch));
  gaze.yaw = Math.round(clamp(yaw, LIMITS.yaw));
  place();
  redirect();
}

function point(event) {
  const box = $("picture").getBoundingClientRect(), c = centre(), reach = REACH * c.size;
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.width;
  aim(Math.atan((c.y - y) / reach) * DEGREES, Math.atan((c.x - x) / reach) * DEGREES);
}

$("picture").addEventListener("pointerdown", (event) => {
  if (event.target.classList.contains("face")) return;
  event.preventDefault();
  $("target").focus();
  $("picture").setPointerCapture(event.pointerId);
  point(event);
});
$("picture").addEventListener("pointermove", (event) => {
  if ($("picture").hasPointerCapture(event.pointerId)) point(event);
});
$("target").addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 5 : 1;
  const moves = { ArrowLeft: [0, step], ArrowRight: [0, -step], ArrowUp: [step, 0], ArrowDown: [-step, 0] };
  if (event.key === "Home") aim(0, 0);
  else if (moves[event.key]) aim(gaze.pitch + moves[event.key][0], gaze.yaw + moves[event.key][1]);
  else return;
  event.preventDefault();
});
$("contact").addEventListener("click", () => aim(0, 0));
$("pitch").addEventListener("input", () => aim(+$("pitch").value, gaze.yaw));
$("yaw").addEventListener("input", () => aim(gaze.pitch, +$("yaw").value));
$("strength").addEventListener("input", () => {
  $("strength-out").textContent = `${$("strength").value} %`;
  redirect();
});
for (const name of ["left", "up"]) {
  $(name).addEventListener("input", () => {
    $(`${name}-out`).textContent = `${$(name).value}°`;
    look();
  });
}
$("depth").addEventListener("change", look);
$("compare").addEventListener("input", () => {
  const share = $("compare").value;
  $("after").style.clipPath = `inset(0 0 0 ${share}%)`;
  $("compare-out").textContent = share === "0" ? "after" : share === "100" ? "before" : `${share} % before`;
});

// --- photos ---------------------------------------------------------------------------------------------------------

function showFaces() {
  $("faces").replaceChildren(...(faces.length < 2 ? [] : faces.map((f, i) => {
    const button = document.createElement("button");
    button.className = "face";
    button.textContent = i + 1;
    button.setAttribute("aria-label", `Face ${i + 1}`);
    button.setAttribute("aria-pressed", i === face);
    button.style.left = `${100 * f.x}%`;
    button.style.top = `${100 * (f.y - 0.75 * f.size) / aspect}%`;
    button.addEventListener("click", () => { face = i; showFaces(); aim(0, 0); });
    return button;
  })));
}

async function load(file) {
  if (!file) return;
  say("");
  if (file.size > BYTES.photo) { say(`this photo is too large: at most ${BYTES.photo >> 20} MB`); return; }
  $("busy").hidden = false;
  try {
    const answer = await call("/api/photo", { method: "POST", body: file });
    const told = await answer.json();
    faces = told.faces;
    face = 0;
    aspect = told.height / told.width;
    const original = await (await call("/api/photo")).blob();
    show($("before"), original);
    show($("after"), original);
    $("drop").hidden = true;
    $("picture").hidden = false;
    $("save").disabled = false;
    showFaces();
    aim(0, 0);
  } catch (error) {
    say(error.message);
  } finally {
    $("busy").hidden = true;
  }
}

for (const id of ["photo", "photo2"]) {
  $(id).addEventListener("change", () => { load($(id).files[0]); $(id).value = ""; });
}
$("stage").addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("over"); });
$("stage").addEventListener("dragleave", () => $("stage").classList.remove("over"));
$("stage").addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  load(event.dataTransfer.files[0]);
});
$("save").addEventListener("click", async () => {
  $("save").disabled = true;
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await (await post("/api/save", wish())).blob());
    link.download = "redirected.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    say(error.message);
  } finally {
    $("save").disabled = false;
  }
});

// --- webcam -----------------------------------------------------------------------------------------------------------

async function startCamera() {
  say("");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch (error) {
    say(`the webcam cannot be used: ${error.message || error.name}`);
    return;
  }
  const film = document.createElement("video");
  film.srcObject = stream;
  film.muted = true;
  await film.play();
  camera = stream;
  const canvas = document.createElement("canvas");
  canvas.width = film.videoWidth;
  canvas.height = film.videoHeight;
  aspect = canvas.height / canvas.width;
  faces = [];
  showFaces();
  place();
  $("camera").hidden = true;
  $("picture").hidden = false;
  try {
    while (camera === stream) {
      canvas.getContext("2d").drawImage(film, 0, 0);
      const frame = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
      const query = new URLSearchParams({ pitch: gaze.pitch, yaw: gaze.yaw, strength: $("strength").value / 100 });
      const answer = await call(`/api/camera?${query}`, { method: "POST", body: frame });
      if (camera !== stream) break;
      show($("before"), frame);
      show($("after"), await answer.blob());
    }
  } catch (error) {
    say(error.message);
  }
  stream.getTracks().forEach((track) => track.stop());
}

$("camera").addEventListener("click", startCamera);

// --- videos -----------------------------------------------------------------------------------------------------------

async function follow() {
  for (;;) {
    const job = await (await call("/api/video")).json();
    if (job.state === "failed") { $("job").hidden = true; say(job.error); return; }
    if (job.state === "none") { $("job").hidden = true; return; }
    if (job.state === "done") {
      $("job").hidden = true;
      $("finished").hidden = false;
      $("result").src = `/api/video/result?${Date.now()}`;
      if (!job.redirected) say("Nothing was changed: no face could be seen well enough.");
      return;
    }
    const left = job.left === null || job.left === undefined ? "" : `, about ${job.left} s left`;
    if (job.total) $("progress").value = job.done / job.total;
    $("progress-text").textContent = job.state === "waiting" ? "waiting for another video"
      : `frame ${job.done}${job.total ? ` of ${job.total}` : ""}${left}`;
    await new Promise((done) => setTimeout(done, 500));
  }
}

$("video").addEventListener("change", async () => {
  const file = $("video").files[0];
  $("video").value = "";
  if (!file) return;
  say("");
  if (file.size > BYTES.video) { say(`this video is too large: at most ${BYTES.video >> 20} MB`); return; }
  $("finished").hidden = true;
  $("job").hidden = false;
  $("progress").value = 0;
  $("progress-text").textContent = "sending";
  const query = new URLSearchParams({ pitch: gaze.pitch, yaw: gaze.yaw, strength: $("strength").value / 100,
    faces: $("everyone").checked ? "all" : "largest" });
  try {
    await call(`/api/video?${query}`, { method: "POST", body: file });
    await follow();
  } catch (error) {
    $("job").hidden = true;
    say(error.message);
  }
});
$("stop").addEventListener("click", () => post("/api/video/stop", {}).catch((error) => say(error.message)));

// --- tabs -------------------------------------------------------------------------------------------------------------

const tabs = ["photo", "camera", "video"];
function choose(name) {
  say("");
  camera = null;
  for (const tab of tabs) {
    $(`tab-${tab}`).setAttribute("aria-selected", tab === name);
    $(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
  }
  $("panel-video").hidden = name !== "video";
  $("panel-stage").hidden = name === "video";
  $("panel-stage").setAttribute("aria-labelledby", `tab-${name}`);
  $("view-set").hidden = $("save-set").hidden = name !== "photo";
  $("compare-set").hidden = name === "video";
  faces = [];
  $("save").disabled = true;
  $("view-image").hidden = true;
  $("picture").hidden = true;
  $("drop").hidden = name !== "photo";
  $("camera").hidden = name !== "camera";
  place();
}
tabs.forEach((name, i) => {
  $(`tab-${name}`).addEventListener("click", () => choose(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowLeft: 2, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = tabs[(i + step) % 3];
    $(`tab-${next}`).focus();
    choose(next);
  });
});
place();
