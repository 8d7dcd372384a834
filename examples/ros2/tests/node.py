#!/usr/bin/env python3
"""The node beside another implementation of what rmw_zenoh speaks: messages and hashes of rosbags, Zenoh's own Python client.

usage: node.py NODE     (the program gemmule-ros2; needs the packages of requirements.txt)
"""

import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import xxhash
import zenoh
from PIL import Image as PilImage
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

PICTURE = Path(__file__).resolve().parents[2] / "pictures" / "shape.png"
DOMAIN = 7
# vision_msgs 4 is not among rosbags' messages.
VISION = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
                   "vision_msgs/BoundingBox2D bbox\nstring id\n",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}
IMAGE, STRING, DETECTIONS = "sensor_msgs/msg/Image", "std_msgs/msg/String", "vision_msgs/msg/Detection2DArray"


def message_store():
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for name, text in VISION.items():
        types.update(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    store.register(types)
    return store


def dds_name(kind):
    package, folder, name = kind.split("/")
    return f"{package}::{folder}::dds_::{name}_"


class Robot:
    """The rest of the graph: it publishes images and hears answers."""

    def __init__(self, topic):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"tcp/127.0.0.1:{free.getsockname()[1]}"
        config = zenoh.Config()
        for key, value in (("mode", '"peer"'), ("scouting/multicast/enabled", "false"),
                           ("listen/endpoints", f'["{self.endpoint}"]'), ("connect/endpoints", "[]")):
            config.insert_json5(key, value)
        self.session, self.store, self.sent = zenoh.open(config), message_store(), 0
        key = f"{DOMAIN}/{topic[1:]}/{dds_name(IMAGE)}/{self.store.hash_rihs01(IMAGE)}"
        self.publisher = self.session.declare_publisher(key, congestion_control=zenoh.CongestionControl.BLOCK)
        self.heard = {}

    def listen(self, topic, kind):
        """A queue of the messages on a topic."""
        heard = queue.Queue()
        key = f"{DOMAIN}/{topic[1:]}/{dds_name(kind)}/{self.store.hash_rihs01(kind)}"
        self.heard[topic] = self.session.declare_subscriber(key, lambda sample: heard.put((sample, kind, time.monotonic())))
        return heard

    def next(self, heard, seconds=60):
        """The next message of such a queue, the sample that brought it, and when."""
        sample, kind, came = heard.get(timeout=seconds)
        return self.store.deserialize_cdr(bytes(sample.payload), kind), sample, came

    def tokens(self):
        return sorted(str(reply.ok.key_expr) for reply in self.session.liveliness().get(f"@ros2_lv/{DOMAIN}/**"))

    def header(self, second):
        stamp = self.store.types["builtin_interfaces/msg/Time"](sec=second, nanosec=5)
        return self.store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_optical")

    def image(self, pixels, encoding, second=1, step=None):
        """The message's bytes for pixels [height, row bytes]."""
        height, row = pixels.shape
        step = step or row
        padded = np.zeros((height, step), np.uint8)
        padded[:, :row] = pixels
        width = row // {"rgb8": 3, "bgr8": 3, "rgba8": 4, "16UC1": 2}[encoding]
        image = self.store.types[IMAGE](header=self.header(second), height=height, width=width, encoding=encoding,
                                        is_bigendian=0, step=step, data=padded.reshape(-1))
        return bytes(self.store.serialize_cdr(image, IMAGE))

    def send(self, message):
        self.sent += 1
        attachment = struct.pack("<qq", self.sent, time.time_ns()) + bytes([16]) + b"a sixteen byte i"
        self.publisher.put(message, attachment=attachment)


class NodeProcess:
    def __init__(self, program, robot, *arguments):
        environment = dict(os.environ, ROS_DOMAIN_ID=str(DOMAIN),
                           ZENOH_CONFIG_OVERRIDE=f'connect/endpoints=["{robot.endpoint}"];listen/endpoints=[]')
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, *arguments], env=environment, stderr=subprocess.PIPE, text=True)
        self.tokens = []
        for _ in range(200):
            self.tokens = robot.tokens()
            if len(self.tokens) == 4:
                return
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"the node is not in the graph: {self.tokens}, {self.process.communicate()[1]}")

    def end(self):
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, (self.process.returncode, said)
        return said


def answers_every_encoding(program):
    robot = Robot("/robot/camera/image_raw")
    node = NodeProcess(program, robot, "--prompt", "describe en", "--namespace", "/robot", "--image", "camera/image_raw")
    identity, hashed = node.tokens[0].split("/")[2], robot.store.hash_rihs01
    place = f"@ros2_lv/{DOMAIN}/{identity}/0"
    answer, detections, image = "%robot%gemmule%answer", "%robot%gemmule%detections", "%robot%camera%image_raw"
    assert node.tokens == [
        f"{place}/0/NN/%/%robot/gemmule",
        f"{place}/1/MP/%/%robot/gemmule/{answer}/{dds_name(STRING)}/{hashed(STRING)}/::,10:,:,:,,",
        f"{place}/2/MP/%/%robot/gemmule/{detections}/{dds_name(DETECTIONS)}/{hashed(DETECTIONS)}/::,10:,:,:,,",
        f"{place}/3/MS/%/%robot/gemmule/{image}/{dds_name(IMAGE)}/{hashed(IMAGE)}/2::,1:,:,:,,",
    ], node.tokens

    answers = robot.listen("/robot/gemmule/answer", STRING)
    time.sleep(0.5)
    rgb = np.asarray(PilImage.open(PICTURE).convert("RGB"))
    height, width = rgb.shape[:2]
    opaque = np.concatenate([rgb, np.full((height, width, 1), 9, np.uint8)], axis=2)
    frames = [(rgb, "rgb8", None), (rgb[:, :, ::-1], "bgr8", 3 * width + 13), (opaque, "rgba8", None)]
    for number, (pixels, encoding, step) in enumerate(frames, 1):
        robot.send(robot.image(pixels.reshape(height, -1), encoding, step=step))
        message, sample, _ = robot.next(answers)
        assert message.data == "a yellow circle at the top", (encoding, message)
        attachment = bytes(sample.attachment)
        assert len(attachment) == 33 and struct.unpack("<q", attachment[:8])[0] == number, attachment
        assert abs(struct.unpack("<q", attachment[8:16])[0] - time.time_ns()) < 60e9
        assert attachment[17:] == xxhash.xxh3_128_intdigest(node.tokens[1].encode()).to_bytes(16, "little")

    # What cannot be used is said and passed over.
    whole = robot.image(rgb.reshape(height, -1), "rgb8")
    for damaged in (whole[:40], whole[:-5], b"", b"\x00\x0a\x00\x00" + whole[4:], robot.image(np.zeros((4, 8), np.uint8), "16UC1")):
        robot.send(damaged)
        time.sleep(0.3)
    robot.send(whole)
    assert robot.next(answers)[0].data == "a yellow circle at the top"
    said = node.end()
    for part in ("ends within", "000a", "'16UC1' are not supported", "4 images answered, 5 failed, 0 dropped"):
        assert part in said, (part, said)


def detects(program):
    robot = Robot("/camera/image_raw")
    node = NodeProcess(program, robot, "--prompt", "detect circle", "--detections", "/found")
    found = robot.listen("/found", DETECTIONS)
    time.sleep(0.5)
    rgb = np.asarray(PilImage.open(PICTURE).convert("RGB"))
    height, width = rgb.shape[:2]
    robot.send(robot.image(rgb.reshape(height, -1), "rgb8", second=1234))
    message, _, _ = robot.next(found)
    assert message.header == robot.header(1234), message.header
    [detection] = message.detections
    [result] = detection.results
    assert detection.header == message.header and result.hypothesis.class_id == "circle", detection
    assert 0.5 < result.hypothesis.score <= 1 and result.pose.pose.orientation.w == 1
    ys, xs = np.nonzero((rgb != rgb[0, 0]).any(axis=2))
    box = detection.bbox
    for got, expected in ((box.center.position.x, (xs.min() + xs.max() + 1) / 2), (box.center.position.y, (ys.min() + ys.max() + 1) / 2),
                          (box.size_x, np.ptp(xs) + 1), (box.size_y, np.ptp(ys) + 1)):
        assert abs(got - expected) < 0.1 * width, (box, got, expected)

    # A camera of 640 × 480 at 30 frames a second, then one that is far too fast.
    frame = np.asarray(PilImage.open(PICTURE).convert("RGB").resize((640, 480))).reshape(480, -1)
    messages = [robot.image(frame, "rgb8", second=second) for second in range(290)]
    sent = {}
    for second, message in enumerate(messages):
        sent[second] = time.monotonic()
        robot.send(message)
        if second < 90:
            time.sleep(max(0, sent[0] + (second + 1) / 30 - time.monotonic()))
    heard = {}
    # The newest image is always answered.
    while len(messages) - 1 not in heard:
        message, _, came = robot.next(found)
        heard[message.header.stamp.sec] = came
    said = node.end()
    latencies = [heard[second] - sent[second] for second in heard if second < 90]
    print(f"640 x 480 at 30 a second: {len(latencies)} of 90 answered, median latency {np.median(latencies) * 1e3:.0f} ms; "
          f"{said.splitlines()[-1]}")
    answered, failed, dropped = (int(word) for word in re.findall(r"(\d+) (?:images answered|failed|dropped)", said))
    assert failed == 0 and dropped > 0 and answered + dropped == robot.sent and answered == len(heard) + 1, said


def refuses_what_is_no_name(program):
    for arguments, part in ((["--image", "a/**"], "no name that ROS allows"), (["--node-name", "a/b"], "no node's name"),
                            (["--model", "/none.gguf"], "/none.gguf")):
        environment = dict(os.environ, ZENOH_CONFIG_OVERRIDE="connect/endpoints=[]")
        run = subprocess.run([program, "--prompt", "caption en", *arguments], env=environment, capture_output=True, text=True, timeout=30)
        assert run.returncode == 1 and part in run.stderr and not run.stdout, (arguments, run)
    environment = dict(os.environ, ZENOH_CONFIG_OVERRIDE="nonsense")
    run = subprocess.run([program, "--prompt", "caption en"], env=environment, capture_output=True, text=True, timeout=30)
    assert run.returncode == 1 and "not KEY=VALUE" in run.stderr, run


def main():
    [program] = sys.argv[1:]
    os.setpgid(0, 0)
    for test in (refuses_what_is_no_name, answers_every_encoding, detects):
        try:
            test(program)
        except BaseException:
            # Zenoh's threads and a node that is left would keep this from ending.
            traceback.print_exc()
            os.killpg(0, signal.SIGTERM)
        print(f"{test.__name__}: ok", flush=True)


if __name__ == "__main__":
    main()
