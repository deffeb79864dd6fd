"""Runs an exported model over images in a process of its own, without this package.

`python run_exported.py FORMAT MODEL FOLDER`: FOLDER holds `pixels.npy`, uint8 [N, h, w, 3], and
the image files as `0`, `1` ... The answers go to `answers.npz` beside them: `labels` string
[N, k] and `scores` float32 [N, k], best first. It is run by its path and imports nothing of
ours, to show that the export does not need this package.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

Answer = tuple[Any, Any]


def saved_model(model: str, folder: Path) -> list[Answer]:
    """Ranks labels of image files; a file that the model refuses gets the label ''."""
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    serve = loaded.signatures["serving_default"]
    answers: list[Answer] = []
    for number in range(len(np.load(folder / "pixels.npy", mmap_mode="r"))):
        content = (folder / str(number)).read_bytes()
        try:
            out = serve(image_bytes=tf.constant([content]))
        except tf.errors.InvalidArgumentError:
            answers.append(([""], [0.0]))
            continue
        names = [name.decode() for name in out["labels"].numpy()[0]]
        answers.append((names, out["scores"].numpy()[0]))
    longest = max(len(names) for names, _ in answers)
    gaps = [(longest - len(names), names, scores) for names, scores in answers]
    return [([*names, *[""] * gap], [*scores, *[0.0] * gap]) for gap, names, scores in gaps]


def tflite(model: str, folder: Path) -> list[Answer]:
    """Ranks labels of pixels; the model's scores are in the order of its labels file."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # TensorFlow's own interpreter, which it will drop for the other one.
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter

    interpreter = Interpreter(model_path=model)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def scores(pixels: Any) -> Any:
        interpreter.set_tensor(source["index"], pixels[np.newaxis])
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])[0]

    return _ranked(map(scores, np.load(folder / "pixels.npy")), model)


def onnx(model: str, folder: Path) -> list[Answer]:
    """Ranks labels of pixels, as `tflite` does."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = np.load(folder / "pixels.npy")
    scores = (session.run(["scores"], {"pixels": one[np.newaxis]})[0][0] for one in pixels)
    return _ranked(scores, model)


def keras(model: str, folder: Path) -> list[Answer]:
    """Ranks labels of pixels, as `tflite` does."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras as library

    loaded = library.models.load_model(model, compile=False)
    return _ranked(loaded.predict(np.load(folder / "pixels.npy"), batch_size=8, verbose=0), model)


def _ranked(scores: Iterable[Any], model: str) -> list[Answer]:
    """Sorts labels by scores; scores are in the order of the labels file beside the model."""
    text = Path(f"{model}.labels.txt").read_text("utf-8")
    labels = np.array(text.split("\n")[:-1])
    orders = [(np.argsort(-row, kind="stable"), row) for row in map(np.asarray, scores)]
    return [(labels[order], row[order]) for order, row in orders]


RUNNERS: dict[str, Callable[[str, Path], list[Answer]]] = {
    "savedmodel": saved_model,
    "tflite": tflite,
    "tflite-int8": tflite,
    "keras": keras,
    "onnx": onnx,
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    export_format, path, work = sys.argv[1:]
    answers = RUNNERS[export_format](path, Path(work))
    names, values = zip(*answers, strict=True)
    np.savez(Path(work, "answers.npz"), labels=np.array(names), scores=np.array(values, "f4"))
