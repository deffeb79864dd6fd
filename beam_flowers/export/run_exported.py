"""Runs an exported model over pictures in a process of its own, without this package.

`python run_exported.py FORMAT MODEL FOLDER`: FOLDER holds `pixels.npy`, uint8 [N, h, w, 3], and
the files `0`, `1` ... as they were; `answers.npz` is written beside them: `labels` string [N, k]
and `scores` float32 [N, k], best first. Run by its path, so it imports nothing of ours: what it
shows is that the export needs none of it.
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
    """Raw files in, ranked labels out; a file that it refuses gets the label ''."""
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
    return [_padded(names, scores, longest) for names, scores in answers]


def _padded(names: Any, scores: Any, length: int) -> Answer:
    missing = length - len(names)
    return [*names, *[""] * missing], [*scores, *[0.0] * missing]


def tflite(model: str, folder: Path) -> list[Answer]:
    """Pixels in, scores in the order of the labels file out."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # TensorFlow's own, which it means to drop in favour of that one.
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter

    interpreter = Interpreter(model_path=model)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def scores(pixels: Any) -> Any:
        interpreter.set_tensor(taken["index"], pixels[np.newaxis])
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])[0]

    return _ranked(map(scores, np.load(folder / "pixels.npy")), model)


def onnx(model: str, folder: Path) -> list[Answer]:
    """As `tflite`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = np.load(folder / "pixels.npy")
    scores = (session.run(["scores"], {"pixels": one[np.newaxis]})[0][0] for one in pixels)
    return _ranked(scores, model)


def keras(model: str, folder: Path) -> list[Answer]:
    """As `tflite`."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras as library

    loaded = library.models.load_model(model, compile=False)
    return _ranked(loaded.predict(np.load(folder / "pixels.npy"), batch_size=8, verbose=0), model)


def _ranked(scores: Iterable[Any], model: str) -> list[Answer]:
    """Scores in the order of the labels file, which lies beside the model."""
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
    kind, path, work = sys.argv[1:]
    answers = RUNNERS[kind](path, Path(work))
    names, values = zip(*answers, strict=True)
    np.savez(Path(work, "answers.npz"), labels=np.array(names), scores=np.array(values, "f4"))
