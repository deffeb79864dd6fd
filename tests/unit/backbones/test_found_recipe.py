"""A network without a name: its recipe is found, is known, or is asked for."""

import json
import zipfile
from dataclasses import replace

import pytest

from beam_flowers.backbones import hub, resolve
from beam_flowers.backbones.found_recipe import KnownRecipe
from beam_flowers.backbones.keras_recipe import keras_recipe
from beam_flowers.backbones.preprocessor_config import CONFIG_FILE
from beam_flowers.backbones.saved_model_messages import saved_model_class
from beam_flowers.errors import BackboneError

FLOAT, BYTE = 1, 4

# --- .keras files ---


def layer(name, source=None, class_name=None, constants=(), **config):
    """A layer of `config.json`; with constants an operation."""
    class_name = class_name or name
    node = {"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}}
    nodes = [{"args": [node, *constants], "kwargs": {}}] if source else []
    module = "keras.src.ops.numpy" if constants else "keras.layers"
    named = {"name": name, **config}
    return {"class_name": class_name, "module": module, "config": named, "inbound_nodes": nodes}


def functional(*layers):
    config = {"name": "net", "layers": list(layers), "input_layers": [["InputLayer", 0, 0]]}
    return {"class_name": "Functional", "module": "keras", "config": config}


INPUT = layer("InputLayer")


def after_input(*chain):
    """A network of layers one after the other."""
    return functional(INPUT, *chain, layer("Conv2D", chain[-1]["config"]["name"]))


def rescaling(scale, offset=0.0):
    return layer("Rescaling", "InputLayer", scale=scale, offset=offset)


def normalization(mean):
    return layer("Normalization", "InputLayer", mean=mean, variance=None)


def operation(name, constant, source="InputLayer"):
    return layer(name, source, constants=[constant])


MEANS = {"class_name": "__numpy__", "config": {"value": [[-103.9, -116.8, -123.7]], "dtype": "f"}}
TWO = functional(INPUT, rescaling(1 / 255), layer("Conv2D", "InputLayer"))
BGR = functional(
    INPUT,
    layer("first", "InputLayer", "GetItem"),
    layer("second", "InputLayer", "GetItem"),
    layer("Stack", "first") | {"inbound_nodes": [layer("", "first"), layer("", "second")]},
    operation("Add", MEANS, "Stack"),
)
for place, name in enumerate(("first", "second")):
    BGR["config"]["layers"][3]["inbound_nodes"][place] = layer("", name)["inbound_nodes"][0]
NESTED = after_input(after_input(rescaling(1 / 255)) | {"inbound_nodes": []})
NESTED["config"]["layers"][1]["config"]["name"] = "Rescaling"
NESTED["config"]["layers"][1]["inbound_nodes"] = rescaling(1)["inbound_nodes"]

TOLD = {
    "rescaling": (after_input(rescaling(1 / 255)), (0, 255)),
    "to -1..1": (after_input(rescaling(1 / 127.5, -1)), (0, 255)),
    "from 0..1": (after_input(rescaling(2, -1)), (0, 1)),
    "back to bytes": (after_input(rescaling(255.0)), (0, 1)),
    "back from -1..1": (after_input(rescaling(127.5, 127.5)), (-1, 1)),
    "means of bytes": (after_input(normalization([123.7, 116.8, 103.9])), (0, 255)),
    "means of 0..1": (after_input(normalization([0.485, 0.456, 0.406])), (0, 1)),
    "divided": (after_input(operation("TrueDivide", 127.5)), (0, 255)),
    "multiplied": (after_input(operation("Multiply", 1 / 255)), (0, 255)),
    "subtracted": (after_input(operation("Subtract", 0.45)), (0, 1)),
    "bgr": (BGR, (0, 255)),
    "nested": (NESTED, (0, 255)),
    "sequential": (
        {
            "class_name": "Sequential",
            "config": {"layers": [INPUT, layer("RandomFlip"), rescaling(1 / 255)]},
        },
        (0, 255),
    ),
    "convolution": (after_input(layer("Conv2D1", "InputLayer", "Conv2D")), None),
    "two ways": (TWO, None),
    "adapted": (after_input(normalization(None)), None),
    "circle": (functional(INPUT, layer("ZeroPadding2D", "ZeroPadding2D")), None),
    "odd scale": (after_input(rescaling(3.0)), None),
    "no layers": ({"class_name": "Functional", "config": {}}, None),
    "no dictionary": ([], None),
}


@pytest.mark.parametrize("name", TOLD)
def test_the_first_layers_tell_the_range(tmp_path, name):
    document, expected = TOLD[name]
    path = str(tmp_path / "net.keras")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(document))
    found = keras_recipe(path)
    assert (found and found[0]["pixel_range"]) == expected


# --- SavedModels and handles ---


@pytest.fixture
def saved_model(tmp_path):
    """Makes a SavedModel of no operations, with signatures of one input of a type."""

    def make(**signatures):
        model = saved_model_class()()
        meta = model.meta_graphs.add()
        for name, dtype in signatures.items():
            entry = meta.signature_def.add(key=[name.encode()])
            entry.value.add().inputs.add().value.add(name=[b"x:0"], dtype=[dtype])
        folder = tmp_path / "mobilenet_v2"
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())
        return folder

    return make


def resolved(folder, **options):
    return resolve.resolve(str(folder), **options)


@pytest.mark.parametrize(
    ("signatures", "expected"),
    [
        ({"serving_default": BYTE}, (0, 255)),
        ({"image_feature_vector": FLOAT, "default": FLOAT}, (0, 1)),
    ],
)
def test_a_signature_tells_the_range(saved_model, signatures, expected):
    assert resolved(saved_model(**signatures)).row.pixel_range == expected


def test_where_nothing_tells_the_run_refuses_and_says_its_guess(saved_model):
    folder = saved_model(serving_default=FLOAT)
    with pytest.raises(BackboneError) as caught:
        resolved(folder)
    message = str(caught.value)
    for part in ("--pixel-range LOW,HIGH", "--backbone-config FILE", "by its name", "=-1,1"):
        assert part in message
    assert resolved(folder, pixel_range=(-1, 1)).row.pixel_range == (-1, 1)


def test_a_file_beside_the_network_tells_it_all(saved_model):
    folder = saved_model(image_feature_vector=FLOAT)
    (folder / CONFIG_FILE).write_text('{"pixel_range": [0, 255], "size": 96, "crop_fraction": 1}')
    row = resolved(folder).row
    assert (row.pixel_range, row.input_size, row.crop) == ((0, 255), 96, 1)
    # A flag has the last word on the values, and the file on the rest.
    row = resolved(folder, pixel_range=(0, 1), input_size=128).row
    assert (row.pixel_range, row.input_size, row.crop) == ((0, 1), 128, 1)


def test_a_file_of_the_users_is_taken_before_that_beside_the_network(saved_model, tmp_path):
    folder, own = saved_model(serving_default=FLOAT), tmp_path / "own.json"
    (folder / CONFIG_FILE).write_text('{"pixel_range": [0, 255]}')
    own.write_text('{"image_mean": [0.4, 0.5, 0.6]}')
    row = resolved(folder, config=str(own)).row
    assert (row.pixel_range, row.mean) == ((0, 1), (0.4, 0.5, 0.6))


def test_the_whole_recipe_is_in_the_fingerprint(saved_model):
    folder = saved_model(serving_default=FLOAT)
    found = {resolved(folder, pixel_range=(0, 255)).fingerprint}
    for key, value in {
        "image_mean": [1, 2, 3],
        "image_std": [1, 2, 3],
        "do_flip_channel_order": True,
        "size": 64,
        "crop_fraction": 0.5,
        "resample": "lanczos",
    }.items():
        (folder / CONFIG_FILE).write_text(json.dumps({"pixel_range": [0, 255], key: value}))
        found.add(resolved(folder).fingerprint)
    assert len(found) == 7


SIZES = {
    "inception_v3/feature_vector/5": 299,
    "inception_v1/classification/4": 224,
    "inception_resnet_v2/feature_vector/5": 299,
    "mobilenet_v2_100_224/feature_vector/5": 224,
    "mobilenet_v2_035_96/classification/4": 96,
    "mobilenet_v3_large_075_224/feature_vector/5": 224,
    "mobilenet_v1_025_128/quantops/feature_vector/3": 128,
    "efficientnet_v2_imagenet21k_ft1k_b3/feature_vector/2": 300,
    "efficientnet_v2_imagenet1k_s/feature_vector/2": 384,
    "efficientnet/b7/feature-vector/1": 600,
    "resnet_v2_50/feature_vector/5": 224,
    "nasnet_large/feature_vector/5": 331,
    "nasnet_mobile/feature_vector/5": 224,
    "my_inception_v30/1": None,
    "bit/m-r50x1/1": None,
}


@pytest.mark.parametrize("name", SIZES)
def test_well_known_handles_have_a_size(name):
    assert hub.documented_size(f"https://tfhub.dev/google/imagenet/{name}") == SIZES[name]


# --- what a store or a model knows ---


def known(backbone):
    return KnownRecipe(backbone.fingerprint, backbone.about()["pixels"])


def test_a_recipe_that_is_known_is_kept_by_an_update(saved_model):
    folder = saved_model(image_feature_vector=FLOAT)
    old = resolved(folder, pixel_range=(-1, 1))
    assert resolved(folder).fingerprint != old.fingerprint
    assert resolved(folder, known=[known(old)]).row == old.row
    # The user's own word counts more.
    assert resolved(folder, known=[known(old)], pixel_range=(0, 255)).row.pixel_range == (0, 255)


@pytest.mark.parametrize("form", [{"precision": "bfloat16"}, {"vectors": "float16"}])
def test_a_recipe_is_known_by_any_form_of_its_vectors(saved_model, form):
    folder = saved_model(serving_default=FLOAT)
    old = replace(resolved(folder, pixel_range=(0, 255)), **form)
    assert resolved(folder, known=[known(old)]).row == old.row


def test_a_recipe_of_other_weights_or_of_another_form_proves_nothing(saved_model):
    folder = saved_model(serving_default=FLOAT)
    right = known(resolved(folder, pixel_range=(0, 255)))
    wrong = [
        right._replace(fingerprint="0" * 64),
        right._replace(pixels={}),
        right._replace(pixels={**right.pixels, "low": "a"}),
        right._replace(pixels={**right.pixels, "low": 300}),
        right._replace(pixels={**right.pixels, "mean": 5}),
    ]
    with pytest.raises(BackboneError, match="nothing says which pixels"):
        resolved(folder, known=wrong)
