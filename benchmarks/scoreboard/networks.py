"""The networks, in the forms that each side takes; made on the spot.

Inception v3 and the cheap network have weights drawn from a fixed seed: the arithmetic does not
depend on their values, if only no batch norm is left out. EfficientNet-Lite0 has those that ship
with the package.
`network.keras` takes pixels 0..255 as float32, `frozen.pb` as uint8; both give float32 [N, D].
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SIZES = {"inception": 299, "lite0": 224, "cheap": 32}


def make_network(folder: Path, name: str) -> Path:
    """`folder` with the network of that name; made once, in a process of its own."""
    if not (folder / "about.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, __file__, str(folder), name], check=True)
    return folder


def about(folder: Path) -> dict[str, Any]:
    """`gflop` of one image and `length` D of its vector."""
    found: dict[str, Any] = json.loads((folder / "about.json").read_text())
    return found


def ours(folder: Path, name: str) -> list[str]:
    """The flags that name the network to us."""
    if name == "lite0":
        return ["--backbone", "efficientnet-lite0"]
    return ["--backbone", str(folder / "network.keras"), "--pixel-range", "0,255"]


def quantised(work: Path, name: str, images: str) -> Path:
    """The folder above `int8/` with the int8 form of a network; made once, if it has to be.

    That of EfficientNet-Lite0 is the package's. For others this environment needs NNCF.
    """
    folder = make_network(work / "networks" / name, name)
    made, above = folder / "int8", work / "networks"
    if (made / "network.xml").exists():
        return above
    from beam_flowers.backbones.resolve import resolve

    if name == "lite0":
        shutil.copytree(resolve("efficientnet-lite0", precision="int8").quantised_place, made)
        return above
    path = str(folder / "network.keras")
    short = resolve(path, pixel_range=(0, 255), engine="openvino").short
    own = above / "int8" / f"network-{short}"
    call = [sys.executable, "-m", "beam_flowers.cli.main", "backbones", "--quantize", path]
    call += ["--pixel-range", "0,255", "--images", images, "--output", str(own), "--overwrite"]
    subprocess.run(call, check=True)
    shutil.copytree(own, made)
    return above


def _build(name: str) -> Any:
    from beam_flowers.backbones.keras_models import keras_library

    keras = keras_library()
    keras.utils.set_random_seed(0)
    if name == "lite0":
        from beam_flowers.backbones.resolve import resolve
        from beam_flowers.export.keras_model import vectors_model

        backbone = resolve("efficientnet-lite0")
        return vectors_model(backbone, backbone.row.recipe(SIZES[name], SIZES[name]))
    pixels = keras.Input((SIZES[name], SIZES[name], 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    if name == "inception":
        application = keras.applications.InceptionV3(
            include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3)
        )
        _draw_statistics(application, keras)
        return keras.Model(pixels, application(scaled))
    x = keras.layers.Conv2D(16, 4, 4, activation="relu")(scaled)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(1280, activation="relu")(x))


def _draw_statistics(model: Any, keras: Any) -> None:
    """Gives batch norms the means and offsets of a trained network, in kind.

    Those of a new one are zeros. TensorFlow removes sums with zeros from a frozen graph, and then
    cannot fuse convolution, sum and ReLU: in bfloat16 a quarter slower than any trained network.
    """
    random = keras.random.SeedGenerator(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for values in (layer.beta, layer.moving_mean):
                values.assign(keras.random.normal(values.shape, stddev=0.3, seed=random))
            variance = layer.moving_variance
            variance.assign(keras.random.uniform(variance.shape, 0.5, 1.5, seed=random))


def _freeze(model: Any, size: int, folder: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])
    def vectors(pixels: Any) -> Any:
        return model(tf.cast(pixels, tf.float32), training=False)

    frozen = convert_variables_to_constants_v2(vectors.get_concrete_function())
    (folder / "frozen.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
    (folder / "frozen.names").write_text(f"{frozen.inputs[0].name} {frozen.outputs[0].name}")


def _gflop(model: Any, size: int) -> float:
    """10^9 additions and multiplications of one image, as TensorFlow's profiler counts them."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.TensorSpec([1, size, size, 3])
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    graph = convert_variables_to_constants_v2(function).graph
    with graph.as_default():
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        found = tf.compat.v1.profiler.profile(graph=graph, cmd="op", options=options)
    return round(found.total_float_ops / 1e9, 3)


def _make(folder: Path, name: str) -> None:
    model, size = _build(name), SIZES[name]
    model.save(folder / "network.keras")
    _freeze(model, size, folder)
    facts = {"gflop": _gflop(model, size), "length": model.output.shape[-1]}
    (folder / "about.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2])
