"""How fast is the world drawn? 20,000 scenes, against drawing the same scenes one by one with Pillow.

Pillow's ImageDraw is what a synthetic data set is usually drawn with. It draws the same scenes twice: plainly, with
jagged edges, and four times as large and scaled down, which is how it gets smooth ones. Both times walls stay plain and
signs are left out, which is less than ours draws. Limit: 5 seconds for 20,000 scenes on two cores.
"""

import statistics
import sys
import time

import numpy as np
from PIL import Image, ImageDraw

from glasshouse.organisms.drawing import CELL, DIAMETERS, SIDE, draw
from glasshouse.organisms.scenes import COLOURS, SHAPES, Scenes, draw_scenes

N, PEER_N, REPEATS, LIMIT = 20_000, 2_000, 3, 5.0


def with_pillow(scenes: Scenes, fine: int) -> np.ndarray:
    """Circles as ellipses, everything else as a polygon of as many corners."""
    colours = list(COLOURS.values())
    pictures = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
    for row in range(len(scenes)):
        image = Image.new("RGB", (SIDE * fine, SIDE * fine), tuple(scenes.shade[row].tolist()))
        pen = ImageDraw.Draw(image)
        for slot in range(4):
            shape = int(scenes.shape[row, slot])
            if shape < 0:
                continue
            down, right = divmod(int(scenes.cell[row, slot]), 3)
            radius = fine * DIAMETERS[scenes.size[row, slot]] / 2
            x, y = fine * (right * CELL + CELL / 2), fine * (down * CELL + CELL / 2)
            box, fill = (x - radius, y - radius, x + radius, y + radius), colours[scenes.colour[row, slot]]
            if SHAPES[shape] in ("circle", "moon", "heart", "duck"):
                pen.ellipse(box, fill=fill)
            else:
                pen.regular_polygon((x, y, radius), 10 if SHAPES[shape] == "star" else 4, fill=fill)
        pictures[row] = np.asarray(image if fine == 1 else image.resize((SIDE, SIDE), Image.Resampling.BOX))
    return pictures


def seconds(work, *given) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work(*given)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> int:
    scenes = draw_scenes(N, seed=0)
    draw(scenes[:64])  # sprites and walls are drawn once
    ours, drawn = seconds(draw, scenes), seconds(draw_scenes, N, 0)
    print(f"{N:,} scenes: sampled in {drawn:.2f} s, drawn in {ours:.2f} s (limit {LIMIT:.0f})")
    for name, fine in (("jagged", 1), ("smooth", 4)):
        peer = seconds(with_pillow, scenes[:PEER_N], fine) * N / PEER_N
        print(f"Pillow, one by one, {name}: {peer:.2f} s (from {PEER_N:,}); ours is {peer / ours:.2f} times as fast")
    return 0 if drawn + ours <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
