"""The recipe of a network in the form of `preprocessor_config.json`."""

import json
from dataclasses import replace

import pytest

from beam_flowers.backbones.catalogue import CATALOGUE, Backbone
from beam_flowers.backbones.preprocessor_config import OWN_TYPE, config_of, read_config
from beam_flowers.errors import BackboneError

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SCALED = {"do_rescale": True, "rescale_factor": 0.00392156862745098, "do_normalize": True}


@pytest.fixture
def row(tmp_path):
    """Reads a document into the row of a network without a name."""

    def read(document):
        path = tmp_path / "config.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return replace(Backbone("net", None, None), **read_config(str(path)))

    return read


# As published with facebook/dinov2-base, google/siglip-base-patch16-224, openai/clip-vit-base,
# google/vit-base-patch16-224 and facebook/convnextv2-tiny-1k-224.
DINOV2 = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_resize": True,
    "image_processor_type": "BitImageProcessor",
    "resample": 3,
    "size": {"shortest_edge": 256},
} | (SCALED | IMAGENET)
SIGLIP = {
    "do_resize": True,
    "image_processor_type": "SiglipImageProcessor",
    "processor_class": "SiglipProcessor",
    "resample": 3,
    "size": {"height": 224, "width": 224},
} | (SCALED | HALF)
CLIP = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
VIT = {
    "do_normalize": True,
    "do_resize": True,
    "image_processor_type": "ViTImageProcessorFast",
    "resample": 2,
    "size": 224,
} | HALF
CONVNEXT = {
    "crop_pct": 0.875,
    "do_resize": True,
    "image_processor_type": "ConvNextImageProcessor",
    "resample": 3,
    "size": {"shortest_edge": 224},
} | (SCALED | IMAGENET)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHED = {
    "dinov2": (DINOV2, (224, None, 256, "bicubic", (0, 1), MEAN, STD)),
    "siglip": (SIGLIP, (224, None, None, "bicubic", (-1, 1), (), ())),
    "clip": (
        CLIP,
        (224, None, 224, "bicubic", (0, 1), tuple(CLIP["image_mean"]), tuple(CLIP["image_std"])),
    ),
    "vit": (VIT, (224, None, None, "bilinear", (-1, 1), (), ())),
    "convnext": (CONVNEXT, (224, None, 256, "bicubic", (0, 1), MEAN, STD)),
    "convnext of 384": (
        CONVNEXT | {"size": {"shortest_edge": 384}},
        (384, None, None, "bicubic", (0, 1), MEAN, STD),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_read(row, name):
    document, expected = PUBLISHED[name]
    r = row(document)
    assert expected == (r.input_size, r.crop, r.resize, r.resample, r.pixel_range, r.mean, r.std)


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        ({}, "pixel_range", (0, 1)),
        ({"do_rescale": False}, "pixel_range", (0, 255)),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, "pixel_range", (-1, 1)),
        ({"do_normalize": False} | HALF, "pixel_range", (0, 1)),
        ({"pixel_range": [-0.9921875, 1]}, "pixel_range", (-0.9921875, 1)),
        ({"do_flip_channel_order": True}, "channels", "bgr"),
        ({"crop_fraction": 0.875}, "crop", 0.875),
        ({"resample": "lanczos"}, "resample", "lanczos"),
        ({}, "input_size", None),
    ],
)
def test_single_keys_are_read(row, document, field, value):
    assert getattr(row(document), field) == value


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is damaged"),
        ({"size": "big"}, "is damaged .size"),
        ({"image_mean": [1, 2]}, "is damaged .image_mean"),
        ({"image_processor_type": "DonutImageProcessor"}, "'DonutImageProcessor'.*ConvNext"),
        ({"size": {"height": 224, "width": 160}}, "only squares"),
        ({"size": {"longest_edge": 224}}, "only squares"),
        ({"size": {"shortest_edge": 224}}, "does not say do_center_crop"),
        ({"do_normalize": True}, "does not say image_mean"),
        ({"resample": 0}, "resample 0.*3 or 'bicubic'"),
        ({"do_pad": True}, "do_pad"),
        ({"do_resize": False}, "do_resize"),
        (
            {"size": {"height": 256, "width": 256}, "crop_size": 224},
            "squashes an image to 256 pixels and cuts 224",
        ),
        ({"pixel_range": [1, 1]}, "pixel range"),
        ({"image_std": [0, 0, 0]}, "std"),
    ],
)
def test_what_is_not_done_here_is_refused_by_name(row, document, message):
    with pytest.raises(BackboneError, match=message):
        row(document)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"none\.json' cannot be read"):
        read_config(str(tmp_path / "none.json"))


TORCH = {"pixel_range": (0.0, 1.0), "mean": MEAN, "std": STD}
ROWS = {
    **{row.name: row for row in CATALOGUE},
    "torch": Backbone("torch", 224, None, resize=256, resample="bicubic", **TORCH),
    "caffe": Backbone(
        "caffe", 224, None, (0.0, 255.0), mean=(103.939, 116.779, 123.68), channels="bgr"
    ),
    "odd": Backbone("odd", None, None, (-0.1, 0.7), crop=0.9, mean=(0.1, 0.1, 0.2)),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_recipe_is_written_as_it_is_read(row, name):
    document = config_of(ROWS[name])
    assert document["image_processor_type"] == OWN_TYPE
    assert row(document).about_pixels() == ROWS[name].about_pixels()
