"""Goldens of COCOeval (pycocotools): coco_ap.json. Usage: python coco_goldens.py [out.json]

Each case holds images (id, width, height), categories, annotations (ground truth, COCO's fields, RLE masks), detections (bbox and
RLE segmentation), and for "bbox" and "segm" what COCOeval makes of them.
"""
import contextlib, io, json, sys
import numpy as np
from pycocotools import mask as M
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]

def rle(mask):
    r = M.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in r["size"]], "counts": r["counts"].decode()}

class Case:
    def __init__(self, name, note, sizes, cats):
        self.name, self.note = name, note
        self.images = [{"id": i + 1, "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
        self.cats = [{"id": c, "name": f"c{c}"} for c in cats]
        self.gt, self.dt = [], []
    def mask(self, image, box, shape):
        im = self.images[image - 1]; y, x = np.mgrid[:im["height"], :im["width"]]; bx, by, bw, bh = box
        inside = (x >= bx) & (x < bx + bw) & (y >= by) & (y < by + bh)
        if shape == "ellipse" and bw > 0 and bh > 0:
            inside &= (((x + .5 - bx - bw / 2) / (bw / 2)) ** 2 + ((y + .5 - by - bh / 2) / (bh / 2)) ** 2) <= 1
        if shape == "holes": inside &= ((x // 3 + y // 2) % 3 != 0)
        if shape == "two": inside &= (np.abs(x - bx - bw / 2) > bw / 6)
        if shape == "empty": inside &= False
        return inside
    def add(self, image, cat, box, shape="rect", crowd=0, **more):
        m = self.mask(image, box, shape)
        self.gt.append({"id": len(self.gt) + 1, "image_id": image, "category_id": cat, "bbox": [float(v) for v in box], "area": float(m.sum()),
            "iscrowd": crowd, "segmentation": rle(m), **more})
    def see(self, image, cat, box, score, shape="rect"):
        self.dt.append({"image_id": image, "category_id": cat, "bbox": [float(v) for v in box], "score": float(score),
            "segmentation": rle(self.mask(image, box, shape))})
    def measure(self, kind):
        with contextlib.redirect_stdout(io.StringIO()):
            g = COCO(); g.dataset = {"images": self.images, "categories": self.cats, "annotations": json.loads(json.dumps(self.gt))}; g.createIndex()
            rows = []
            for i, d in enumerate(json.loads(json.dumps(self.dt))):
                d.update(id=i + 1, iscrowd=0)   # as COCO.loadRes does (which fails on an empty list)
                if kind == "bbox": d.pop("segmentation"); d["area"] = d["bbox"][2] * d["bbox"][3]
                else: d["area"] = int(M.area(d["segmentation"])); d["bbox"] = M.toBbox(d["segmentation"]).tolist()
                rows.append(d)
            t = COCO(); t.dataset = {"images": self.images, "categories": self.cats, "annotations": rows}; t.createIndex()
            if rows:   # the same through loadRes
                keep = ("image_id", "category_id", "score", "bbox" if kind == "bbox" else "segmentation")
                t2 = g.loadRes([{k: json.loads(json.dumps(d[k])) for k in keep} for d in self.dt])
                assert all(a["area"] == b["area"] and a["id"] == b["id"] for a, b in zip(t2.dataset["annotations"], rows)), self.name
            e = COCOeval(g, t, kind); e.evaluate(); e.accumulate(); e.summarize()
        mean = lambda a: float(a[a > -1].mean()) if (a > -1).any() else -1.0
        P, R = e.eval["precision"], e.eval["recall"]
        per = {}
        for k, c in enumerate(e.params.catIds):
            per[str(int(c))] = {"AP": mean(P[:, :, k, 0, 2]), "AP50": mean(P[0, :, k, 0, 2]), "AP75": mean(P[5, :, k, 0, 2]), "AR100": mean(R[:, k, 0, 2])}
        return {"stats": dict(zip(NAMES, map(float, e.stats))), "classes": per}
    def out(self):
        return {"name": self.name, "note": self.note, "images": self.images, "categories": self.cats, "annotations": self.gt,
            "detections": self.dt, "bbox": self.measure("bbox"), "segm": self.measure("segm")}

def cases():
    q = lambda v: np.round(np.asarray(v) * 4) / 4       # quarters: exact in f32 too
    c = Case("plain", "two images, two classes, misses and false alarms", [(64, 48), (48, 64)], [1, 2])
    c.add(1, 1, [4, 4, 20, 16], "ellipse"); c.add(1, 2, [30, 10, 20, 30]); c.add(2, 1, [5, 8, 30, 30], "two"); c.add(2, 1, [10, 45, 16, 12], "ellipse")
    c.see(1, 1, [5, 4, 20, 16], .9, "ellipse"); c.see(1, 2, [30, 12, 18, 28], .8); c.see(2, 1, [6, 9, 28, 30], .7, "two"); c.see(2, 1, [20, 20, 20, 20], .85); c.see(1, 2, [0, 0, 10, 10], .3)
    yield c
    c = Case("perfect", "each object found; precision is tp/(tp+fp+2^-52), so AP is just under one", [(40, 40)] * 2, [1])
    for i in (1, 2): c.add(i, 1, [3, 3, 12, 12], "ellipse"); c.add(i, 1, [20, 20, 15, 15]); c.see(i, 1, [3, 3, 12, 12], .5, "ellipse"); c.see(i, 1, [20, 20, 15, 15], .6)
    yield c
    c = Case("ties", "equal scores: order of the list within an image, then of image ids; detections listed out of image order", [(50, 50)] * 3, [1])
    for i in (1, 2, 3): c.add(i, 1, [10, 10, 20, 20], "ellipse")
    c.see(3, 1, [10, 10, 20, 20], .5, "ellipse"); c.see(1, 1, [30, 30, 10, 10], .5); c.see(1, 1, [11, 10, 20, 20], .5, "ellipse"); c.see(1, 1, [10, 10, 20, 20], .5, "ellipse")
    c.see(2, 1, [0, 0, 9, 9], .5); c.see(2, 1, [10, 12, 20, 20], .5, "ellipse"); c.see(3, 1, [40, 40, 5, 5], .9)
    yield c
    c = Case("crowds", "a crowd takes any number of detections, by intersection over the detection's area; objects come before crowds", [(100, 80)], [1, 2])
    c.add(1, 1, [10, 10, 60, 50], "holes", 1); c.add(1, 1, [20, 20, 16, 16], "ellipse"); c.add(1, 1, [75, 50, 20, 20]); c.add(1, 2, [0, 0, 50, 50], "rect", 1)
    c.see(1, 1, [20, 20, 16, 16], .9, "ellipse"); c.see(1, 1, [22, 20, 16, 16], .8, "ellipse"); c.see(1, 1, [40, 30, 20, 20], .7, "holes"); c.see(1, 1, [60, 45, 24, 24], .6)
    c.see(1, 1, [75, 52, 20, 20], .5); c.see(1, 1, [12, 12, 30, 30], .4, "holes"); c.see(1, 2, [5, 5, 10, 10], .9); c.see(1, 2, [60, 60, 10, 10], .8); c.see(1, 1, [90, 0, 9, 9], .95)
    yield c
    c = Case("only crowds", "no object counts: -1", [(40, 40)], [1]); c.add(1, 1, [0, 0, 30, 30], "two", 1); c.see(1, 1, [0, 0, 20, 20], .5); yield c
    c = Case("empty classes", "2: only detections (-1), 3: only objects (0), 4: neither (-1); image 2 has only detections, 3 only objects, 4 nothing", [(40, 40)] * 4, [1, 2, 3, 4])
    c.add(1, 1, [2, 2, 10, 10]); c.add(1, 3, [20, 20, 10, 10]); c.add(3, 1, [2, 2, 10, 10], "ellipse")
    c.see(1, 1, [2, 2, 10, 11], .6); c.see(1, 2, [2, 2, 10, 10], .9); c.see(2, 1, [5, 5, 10, 10], .7); c.see(2, 2, [5, 5, 10, 10], .7)
    yield c
    c = Case("no detections", "", [(20, 20)], [1]); c.add(1, 1, [2, 2, 10, 10]); yield c
    c = Case("thresholds", "overlaps of exactly 0.5, 0.6, 0.75, 0.8, 0.9 count as found at the threshold of that name or not as f64 has it", [(100, 20)] * 6, [1, 2])
    for i, w in enumerate([10, 12, 15, 16, 18, 19]): c.add(i + 1, 1, [0, 0, 20, 10]); c.see(i + 1, 1, [0, 0, w, 10], .9 - i / 10)
    for i, (g, d) in enumerate([(20, 11), (20, 13), (20, 14), (20, 17), (40, 38), (60, 57)]): c.add(i + 1, 2, [0, 0, g, 10]); c.see(i + 1, 2, [0, 0, d, 10], .5)
    yield c
    c = Case("greedy", "the best-scored detection takes the object it overlaps most, the last of equals; a later one may be left none", [(80, 60)], [1, 2])
    c.add(1, 1, [10, 10, 20, 20]); c.add(1, 1, [16, 10, 20, 20]); c.see(1, 1, [13, 10, 20, 20], .9); c.see(1, 1, [11, 10, 20, 20], .8); c.see(1, 1, [18, 10, 20, 20], .7)
    c.add(1, 2, [10, 30, 20, 20]); c.add(1, 2, [12, 30, 20, 20]); c.see(1, 2, [11, 30, 20, 20], .6); c.see(1, 2, [10, 30, 20, 20], .5)
    yield c
    c = Case("ranges", "areas at and around 32² and 96²; an unmatched detection out of the range is left out", [(320, 240)] * 2, [1])
    for i, s in enumerate([31, 32, 33, 95, 96, 97]):
        im, x, y = (1, 5 + i % 3 * 100, 5 + i // 3 * 110) if i != 5 else (2, 10, 10)
        c.add(im, 1, [x, y, s, s]); c.see(im, 1, [x + 1, y, s, s - (i % 2)], .9 - .1 * i)
    c.see(1, 1, [200, 200, 33, 33], .85); c.see(2, 1, [150, 100, 100, 100], .85); c.see(2, 1, [10, 150, 20, 20], .95); c.add(2, 1, [200, 10, 60, 60], "ellipse", area=500.0)
    yield c
    c = Case("many", "more than 1, 10 and 100 detections of an image", [(128, 128)] * 2, [1])
    r = np.random.default_rng(1)
    for i in range(14): c.add(1, 1, [8 * (i % 7) * 2, 20 + 40 * (i // 7), 10, 14]); c.see(1, 1, [8 * (i % 7) * 2 + i % 3, 20 + 40 * (i // 7), 10, 14], (i + 1) / 16)
    c.add(2, 1, [4, 4, 9, 9]); c.see(2, 1, [4, 4, 9, 9], .001)
    for i in range(104): c.see(2, 1, [60 + i % 20, 60 + i // 20, 4, 4], .01 + round(r.random() / 5, 2))
    yield c
    c = Case("odd", "\"ignore\": 1 does nothing, boxes without area, empty masks, boxes and masks that disagree", [(48, 48)], [1, 2])
    c.add(1, 1, [2, 2, 10, 10], "rect", 0, ignore=1); c.add(1, 1, [20, 20, 0, 5]); c.add(1, 1, [20, 20, 12, 12], "empty"); c.add(1, 2, [5, 5, 30, 8], "two", 1); c.add(1, 2, [5, 20, 30, 8], "two")
    c.see(1, 1, [2, 2, 10, 9], .9); c.see(1, 1, [20, 20, 0, 5], .8); c.see(1, 1, [20, 20, 12, 12], .7, "empty"); c.see(1, 2, [6, 5, 9, 8], .6); c.see(1, 2, [5, 20, 30, 8], .5); c.see(1, 2, [5, 20, 30, 8], .4, "two")
    yield c
    for name, exact, seed in (("random", True, 3), ("random doubles", False, 4)):
        c = Case(name, "boxes in quarters of a pixel" if exact else "boxes are any doubles: f32 may part from f64 only far from the thresholds", [(72, 60), (60, 72), (80, 50), (64, 64), (56, 66)], [3, 7, 9])
        r = np.random.default_rng(seed); shapes = ["rect", "ellipse", "two", "holes"]
        for im in range(1, 6):
            w, h = c.images[im - 1]["width"], c.images[im - 1]["height"]
            for _ in range(r.integers(2, 6)):
                bw, bh = r.uniform(8, 36, 2); box = np.array([r.uniform(0, w - bw), r.uniform(0, h - bh), bw, bh]); box = q(box) if exact else box
                cat, shape, crowd = int(r.choice([3, 7, 9])), str(r.choice(shapes)), int(r.random() < .15); c.add(im, cat, box, shape, crowd)
                for _ in range(r.integers(0, 4)):
                    near = box + r.normal(0, 2.2, 4); near[2:] = np.maximum(near[2:], 3); near = q(near) if exact else near
                    c.see(im, cat if r.random() < .9 else int(r.choice([3, 7, 9])), near, round(r.random(), 1), shape if r.random() < .8 else str(r.choice(shapes)))
            for _ in range(2):
                near = np.array([*r.uniform(0, 30, 2), *r.uniform(5, 30, 2)]); near = q(near) if exact else near
                c.see(im, int(r.choice([3, 7, 9])), near, round(r.random(), 1), str(r.choice(shapes)))
        order = r.permutation(len(c.dt)); c.dt = [c.dt[i] for i in order]
        yield c

if __name__ == "__main__":
    out = [c.out() for c in cases()]
    path = sys.argv[1] if len(sys.argv) > 1 else "coco_ap.json"
    with open(path, "w") as f: f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")
    for c in out:
        for k in ("bbox", "segm"): print(f'{c["name"]:15} {k}', " ".join(f"{v:.3f}" for v in c[k]["stats"].values()), {a: round(b["AP"], 3) for a, b in c[k]["classes"].items()})
    print([float(v).hex() for v in COCOeval(iouType="bbox").params.iouThrs], [repr(float(v)) for v in COCOeval(iouType="bbox").params.iouThrs])
    rec = COCOeval(iouType="bbox").params.recThrs; print("recThrs == i*0.01:", all(rec[i] == i * .01 for i in range(101)), "== i/100:", [i for i in range(101) if rec[i] != i / 100])
