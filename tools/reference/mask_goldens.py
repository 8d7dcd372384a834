"""Goldens of the mask decoder: big_vision's VQ-VAE in torch on random weights of the true shapes, stage by stage, and the
masks that PIL and pycocotools make of its output.

    pip install torch pillow pycocotools safetensors
    python tools/reference/mask_goldens.py tests/goldens/masks
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x):
        return x + self.net(x)


def decoder(code=512, width=128, upsampled=(128, 64, 32, 16)):
    """Numbered as the keys of vae-oid.npz are, whose widths these are."""
    layers = [nn.Conv2d(code, width, 1), nn.ReLU(), Residual(width), Residual(width)]
    for outputs in upsampled:
        layers += [nn.ConvTranspose2d(width, outputs, 4, stride=2, padding=1), nn.ReLU()]
        width = outputs
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 1))


def small(folder):
    """A decoder of other widths: its last stage for one mask."""
    torch.manual_seed(7)
    model = decoder(48, 24, (32, 16, 8, 4))
    codes = torch.arange(16) * 7 % 128
    book = torch.randn(128, 48)
    with torch.no_grad():
        values = model(book[codes].reshape(4, 4, 48).permute(2, 0, 1)[None])[0, 0]
    arrays = {"decoder." + name: value.detach().numpy() for name, value in model.named_parameters()}
    np.savez_compressed(folder / "small.npz", **arrays, **{"_vq_vae._embedding": book.numpy()})
    save_file({"codes": codes.numpy(), "values": np.ascontiguousarray(values.numpy())}, folder / "small.safetensors")


def main():
    from pycocotools import mask as coco

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20)
    model = decoder()
    # Eight values each, so that the archive stays small.
    palette = np.array([-1.5, -1.0, -0.6, -0.2, 0.2, 0.6, 1.0, 1.5], np.float32)

    def draw(shape, spread):
        return palette[random.integers(0, 8, shape)] * np.float32(spread)

    arrays = {"_vq_vae._embedding": draw((128, 512), 1.0)}
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            inputs = tensor.shape[0] if "weight" in name and tensor.shape[2:] == (4, 4) else tensor[0].numel()
            # A transposed convolution of stride 2 meets a quarter of its taps.
            spread = (1.5 / (inputs * (4 if tensor.shape[2:] == (4, 4) else 1))) ** 0.5 if tensor.dim() > 1 else 0.1
            array = draw(tuple(tensor.shape), spread)
            tensor.copy_(torch.from_numpy(array))
            arrays["decoder." + name] = array
        # Half of the values above zero, so that the masks have edges.
        embedding = torch.from_numpy(arrays["_vq_vae._embedding"])
        sample = embedding[random.integers(0, 128, (8, 16))].reshape(8, 4, 4, 512).permute(0, 3, 1, 2)
        model[-1].bias -= model(sample).median()
        arrays["decoder.12.bias"] = model[-1].bias.numpy().copy()
    np.savez_compressed(folder / "vae.npz", **arrays)

    np.savez_compressed(folder / "other-shapes.npz", **{"_vq_vae._embedding": np.zeros((64, 512), np.float32)})

    codes = random.integers(0, 128, (4, 16))
    tensors, masks = {"codes": codes.astype(np.int64)}, []
    picture_sizes = [(64, 64), (333, 217), (40, 90), (1280, 720)]
    boxes = [(0, 0, 1023, 1023), (100, 51, 900, 770), (512, 300, 1023, 1023), (7, 400, 40, 430)]
    with torch.no_grad():
        for index, code in enumerate(codes):
            x = torch.from_numpy(arrays["_vq_vae._embedding"][code]).reshape(4, 4, 512).permute(2, 0, 1)[None]
            stages = [x]
            for layer in model:
                x = layer(x)
                if isinstance(layer, (nn.ReLU, Residual)) or layer is model[-1]:
                    stages.append(x)
            # Every stage once; they are large.
            kept = stages if index == 0 else stages[-1:]
            for stage, value in enumerate(stages[-len(kept) :], len(stages) - len(kept)):
                tensors[f"{index}.{stage}"] = np.ascontiguousarray(value[0].permute(1, 2, 0).numpy())
            values = x[0, 0].numpy()
            (width, height), location = picture_sizes[index], np.array(boxes[index])
            y_min, x_min, y_max, x_max = map(int, location / 1023 * [height, width, height, width])
            whole = np.zeros((height, width), np.uint8)
            resized = Image.fromarray(values).resize((x_max - x_min, y_max - y_min), Image.BILINEAR)
            whole[y_min:y_max, x_min:x_max] = np.asarray(resized) > 0
            print(f"{whole.sum() / max(1, (x_max - x_min) * (y_max - y_min)):.2f} of the box, values {values.std():.2f}")
            counts = coco.encode(np.asfortranarray(whole))["counts"].decode()
            masks.append({"size": [height, width], "locations": location.tolist(), "counts": counts, "area": int(whole.sum())})
    save_file(tensors, folder / "golden.safetensors")
    small(folder)
    (folder / "masks.json").write_text(json.dumps(masks, indent=1) + "\n")


if __name__ == "__main__":
    main()
