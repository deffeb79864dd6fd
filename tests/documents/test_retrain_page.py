"""docs/retrain.md: whatever it names as ours is there."""

import re

import pytest
from places import DOCS

from beam_flowers.cli.config import command_parsers, keys_of
from beam_flowers.cli.parser import make_parser

PAGE = (DOCS / "retrain.md").read_text()
PARSERS = command_parsers(make_parser())
NAMED = sorted(set(re.findall(rf"`({'|'.join(PARSERS)})((?: --?[\w-]+)+)", PAGE)))
OURS = re.findall(r"^\| .* \| (.*) \|$", PAGE, re.M)


@pytest.mark.parametrize(("command", "words"), NAMED, ids=lambda value: value.strip())
def test_a_flag_that_the_page_names_exists(command, words):
    for flag in re.findall(r"--([\w-]+)", words):
        assert flag in keys_of(PARSERS[command]), f"{command} has no --{flag}"


def test_the_page_names_flags():
    assert len(NAMED) > 40


def test_each_flag_in_the_last_column_stands_behind_its_command():
    for cell in OURS:
        for code in re.findall(r"`([^`]*)`", cell):
            if code.startswith("--"):
                known = {f"--{key}" for parser in PARSERS.values() for key in keys_of(parser)}
                assert code.split()[0] in known | {"--runner", "--recipe"}


# Of prior versions' parsers: tensorflow/hub's retrain.py, label_image.py and make_image_classifier.
@pytest.mark.parametrize(
    ("heading", "flags"),
    [
        (
            "Its flags",
            "image_dir output_graph output_labels saved_model_dir intermediate_output_graphs_dir "
            "intermediate_store_frequency summaries_dir checkpoint_path how_many_training_steps "
            "learning_rate testing_percentage validation_percentage eval_step_interval "
            "train_batch_size validation_batch_size test_batch_size final_tensor_name "
            "print_misclassified_test_images bottleneck_dir flip_left_right random_crop "
            "random_scale random_brightness tfhub_module logging_verbosity",
        ),
        (
            "label_image.py",
            "image graph labels input_height input_width input_mean input_std input_layer "
            "output_layer",
        ),
        (
            "make_image_classifier",
            "image_dir tfhub_module image_size saved_model_dir tflite_output_file "
            "labels_output_file summaries_dir assert_accuracy_at_least train_epochs "
            "do_fine_tuning batch_size learning_rate momentum dropout_rate l1_regularizer "
            "l2_regularizer label_smoothing validation_split do_data_augmentation rotation_range "
            "horizontal_flip width_shift_range height_shift_range shear_range zoom_range "
            "set_memory_growth distribution_strategy use_tf_data_input",
        ),
    ],
)
def test_every_flag_of_the_ancestors_is_mapped(heading, flags):
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    left = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`--(\w+)`", left)) >= set(flags.split())
