"""Small random networks in ONNX's form, as Hugging Face publishes such, made on the spot."""

import json

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model

from beam_flowers.backbones import efficientnet_lite, weights
from beam_flowers.backbones.catalogue import find_row

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_normalize": True,
} | IMAGENET
CONVNEXT = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_pct": 0.875,
    "resample": 3,
    "do_normalize": True,
} | IMAGENET


class Maker:
    """Collects nodes and weights of a graph, and gives their tensors names."""

    def __init__(self, seed):
        self.random, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def node(self, operator, *inputs, name=None, **attributes):
        output = name or f"t{len(self.nodes)}"
        node = helper.make_node(operator, [*map(self.named, inputs)], [output], **attributes)
        self.nodes.append(node)
        return output

    def named(self, value):
        if isinstance(value, str):
            return value
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def normal(self, *shape):
        fan = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        return self.random.normal(0, fan**-0.5, shape).astype("f4")

    def model(
        self, outputs, shape=("batch", 3, "height", "width"), dtype=TensorProto.FLOAT, **more
    ):
        """`outputs` are shapes by name."""
        pixels = helper.make_tensor_value_info("pixel_values", dtype, shape)
        made = [helper.make_tensor_value_info(name, dtype, s) for name, s in outputs.items()]
        inputs = [pixels, *more.pop("inputs", ())]
        graph = helper.make_graph(self.nodes, "net", inputs, made, self.weights)
        more.setdefault("opset_imports", [helper.make_opsetid("", 17)])
        return helper.make_model(graph, ir_version=8, **more)


def vit(seed=0, outputs=("last_hidden_state", "pooler_output"), width=48, heads=3, blocks=2):
    """A ViT of 4 x 4 patches of 8 pixels and a class token, of random weights."""
    m, one = Maker(seed), np.float32
    each = width // heads

    def norm(x):
        return m.node("LayerNormalization", x, m.normal(width) + 1, m.normal(width), axis=-1)

    def dense(x, inside, out):
        return m.node("Add", m.node("MatMul", x, m.normal(inside, out)), m.normal(out))

    def split(x):
        x = m.node("Reshape", x, np.array([0, -1, heads, each]))
        return m.node("Transpose", x, perm=[0, 2, 1, 3])

    patches = m.node("Conv", "pixel_values", m.normal(width, 3, 8, 8), strides=[8, 8])
    x = m.node("Reshape", patches, np.array([0, width, -1]))
    x = m.node("Transpose", x, perm=[0, 2, 1])
    # The class token, once an image: the number of images is open.
    count = m.node("Slice", m.node("Shape", x), np.array([0]), np.array([1]))
    shape = m.node("Concat", count, np.array([1, width]), axis=0)
    x = m.node("Concat", m.node("Expand", m.normal(1, 1, width), shape), x, axis=1)
    x = m.node("Add", x, m.normal(1, 17, width))
    for _ in range(blocks):
        y = norm(x)
        q, k, v = (split(dense(y, width, width)) for _ in range(3))
        scores = m.node("MatMul", q, m.node("Transpose", k, perm=[0, 1, 3, 2]))
        weights = m.node("Softmax", m.node("Mul", scores, one(each**-0.5)), axis=-1)
        y = m.node("Transpose", m.node("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = m.node("Add", x, dense(m.node("Reshape", y, np.array([0, -1, width])), width, width))
        y = dense(norm(x), width, 2 * width)
        half = m.node("Mul", y, one(0.5))
        y = m.node(
            "Mul", half, m.node("Add", m.node("Erf", m.node("Mul", y, one(0.5**0.5))), one(1))
        )
        x = m.node("Add", x, dense(y, 2 * width, width))
    tokens = m.node(
        "LayerNormalization", x, m.normal(width), m.normal(width), name="last_hidden_state"
    )
    first = m.node("Gather", tokens, np.array(0), axis=1)
    m.node("Tanh", dense(first, width, width), name="pooler_output")
    shapes = {"last_hidden_state": ("batch", 17, width), "pooler_output": ("batch", width)}
    return m.model({name: shapes[name] for name in outputs})


def convnext(seed=0):
    """Two ConvNeXt blocks of random weights, with `last_hidden_state` as a map, and a pooler."""
    m, width = Maker(seed), 24

    def norm(x):
        last = m.node("Transpose", x, perm=[0, 2, 3, 1])
        return m.node("LayerNormalization", last, m.normal(width) + 1, m.normal(width), axis=-1)

    x = m.node("Conv", "pixel_values", m.normal(width, 3, 4, 4), m.normal(width), strides=[4, 4])
    for _ in range(2):
        depthwise = m.normal(width, 1, 7, 7)
        y = norm(m.node("Conv", x, depthwise, m.normal(width), group=width, pads=[3] * 4))
        y = m.node("Add", m.node("MatMul", y, m.normal(width, 96)), m.normal(96))
        y = m.node("Mul", y, m.node("Sigmoid", m.node("Mul", y, np.float32(1.702))))
        y = m.node("Mul", m.node("MatMul", y, m.normal(96, width)), m.normal(width))
        x = m.node("Add", x, m.node("Transpose", y, perm=[0, 3, 1, 2]))
    m.node("Identity", x, name="last_hidden_state")
    pooled = m.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    m.node("LayerNormalization", pooled, m.normal(width), m.normal(width), name="pooler_output")
    return m.model(
        {
            "last_hidden_state": ("batch", width, 8, 8),
            "pooler_output": ("batch", width),
        }
    )


def classifier(seed=0):
    """A network that ends in a thousand classes, as published ones of timm do."""
    m = Maker(seed)
    x = m.node("Relu", m.node("Conv", "pixel_values", m.normal(16, 3, 4, 4), strides=[4, 4]))
    m.node("Flatten", m.node("GlobalAveragePool", x), name="features")
    m.node("Gemm", "features", m.normal(16, 1000), m.normal(1000), name="logits")
    return m.model({"logits": ("batch", 1000)})


def publish(folder, model, config=VIT, file="onnx/model.onnx", data=None):
    """Writes a network and its recipe into a folder; `data` names a file for its weights."""
    checker.check_model(model)
    graph = folder / file
    graph.parent.mkdir(parents=True, exist_ok=True)
    more = {"save_as_external_data": True, "location": data, "size_threshold": 256} if data else {}
    save_model(model, str(graph), **more)
    if config is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return str(folder)


def two_inputs():
    """Towers for texts and images in one graph."""
    m = Maker(0)
    m.node("Flatten", m.node("GlobalAveragePool", "pixel_values"), name="image_embeds")
    m.node("Gather", m.normal(9, 4), "input_ids", name="text_embeds")
    texts = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "length"])
    shapes = {"image_embeds": ("batch", 3), "text_embeds": ("texts", "length", 4)}
    return m.model(shapes, inputs=[texts])


def lite0():
    """EfficientNet-Lite0 with the weights of the package."""
    row = find_row("efficientnet-lite0")
    architecture, arrays = efficientnet_lite.read(weights.places(row)[0])
    m = Maker(0)

    def convolve(x, layer, stride=1, is_depthwise=False):
        kernel = arrays[f"{layer}/kernel"]
        group = kernel.shape[2] if is_depthwise else 1
        kernel = kernel.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
        bias = arrays[f"{layer}/bias"]
        more = {"strides": [stride] * 2, "auto_pad": "SAME_UPPER", "group": group}
        return m.node("Conv", x, np.ascontiguousarray(kernel), bias, **more)

    def relu6(x):
        return m.node("Clip", x, np.float32(0), np.float32(6))

    x = relu6(convolve("pixel_values", "stem", 2))
    for number, block in enumerate(architecture["blocks"]):
        name, inside = f"block{number:02d}", x
        if block["expand_ratio"] != 1:
            inside = relu6(convolve(x, f"{name}_expand"))
        inside = relu6(convolve(inside, f"{name}_depthwise", block["stride"], is_depthwise=True))
        inside = convolve(inside, f"{name}_project")
        x = m.node("Add", inside, x) if block["residual"] else inside
    x = relu6(convolve(x, "head"))
    m.node("ReduceMean", x, axes=[2, 3], keepdims=0, name="image_embeds")
    return m.model({"image_embeds": ("batch", 1280)}, shape=("batch", 3, 224, 224))
