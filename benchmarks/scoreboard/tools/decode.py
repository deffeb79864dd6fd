"""Reading and decoding alone, by our functions, in our pool of threads:
`IMAGES NETWORK SIZE OUTPUT`, as the peers have it."""

from __future__ import annotations

import sys

from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.compute import pool, read_content
from beam_flowers.images.decode import decode
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import Image, Reject

LIMITS = Limits()


def pixels(image: Image, recipe: PixelRecipe) -> int:
    """The bytes of an image's pixels."""
    content = read_content(image, LIMITS)
    return 0 if isinstance(content, Reject) else decode(content[1], recipe, LIMITS).pixels.nbytes


def main() -> None:
    """Decodes all."""
    images, _, size, _ = sys.argv[1:]
    recipe = Backbone("any", int(size), None).recipe(int(size), int(size))
    found = [f for f in find_images([images]) if isinstance(f, Image)]
    print(sum(pool().map(lambda image: pixels(image, recipe), found)), "bytes")


if __name__ == "__main__":
    main()
