"""Tests that take long and try again, more widely, what a shorter one tries as well.

`make test` leaves them out, `make test-wide` runs them alone, plain `pytest` and CI run all.
"""

#: Beginnings of the names of tests.
WIDE = (
    # Whole programs in processes of their own.
    "tests/bench/test_bench.py::test_digits_end_to_end",
    "tests/examples/test_examples.py::test_demo_leaves_artefacts_pictures_and_a_report[words",
    "tests/examples/test_examples.py::test_demo_leaves_artefacts_pictures_and_a_report[sunspots",
    "tests/examples/test_examples.py::test_recipe_runs_and_its_artefact_answers[feature_maps",
    "tests/examples/test_examples.py::test_recipe_runs_and_its_artefact_answers[custom_attention",
    "tests/sources/keras/to_onnx/test_canonical.py::test_two_processes_write_the_same_bytes",
    "tests/test_layout.py::test_each_function_may_be_the_first_thing_used",
    # Rows of the sweep of Keras: some of each kind are in the short tests.
    "tests/sweep/test_sweep.py::test_a_row_agrees[Conv3D: groups",
    "tests/sweep/test_sweep.py::test_a_row_agrees[Conv2DTranspose: same, stride over kernel",
    "tests/sweep/test_sweep.py::test_a_row_agrees[SeparableConv2D: same, stride 2",
    "tests/sweep/test_sweep.py::test_a_row_agrees[MaxPooling2D: overlapping, same",
    "tests/sweep/test_sweep.py::test_a_row_agrees[EinsumDense: heads",
    "tests/sweep/test_sweep.py::test_a_row_agrees[UpSampling2D: bicubic",
    "tests/sweep/test_sweep.py::test_a_row_agrees[activations.gelu: exact",
    "tests/sweep/test_sweep.py::test_a_row_agrees[ops.logaddexp",
    # More seeds, sizes and formats.
    "tests/graph/test_open_sizes.py::test_time[recurrent-True",
    "tests/graph/test_transformer_blocks.py::test_every_method_passes_them[21",
    "tests/methods/test_attention_relevance.py::test_several_classes_at_once[SavedModel",
    "tests/methods/test_attention_rollout.py::test_tensorflow_computes_it_too[m.keras",
    "tests/methods/test_cams_by_scores.py::test_an_image[saved",
    "tests/methods/test_cams_by_scores.py::test_maps_in_the_size_of_the_input_and_open_sizes",
    "tests/methods/test_cams_by_scores.py::test_other_numbers_of_axes[3-D",
    "tests/methods/test_deep_lift.py::test_completeness_against_the_untouched_model[1",
    "tests/methods/test_games.py::test_exact_shapley_values_of_groups_of_a_keras_model[saved",
    "tests/methods/test_gradients_at_points.py::test_a_saved_model_and_an_instrumented_one",
    "tests/methods/test_groups_of_a_request.py::test_superpixels_of_a_picture[saved",
    "tests/methods/test_occlusion.py::test_a_fixed_batch_and_states_run_one_point_at_a_time",
    "tests/methods/test_occlusion.py::test_an_image_of_a_keras_model[window2",
    "tests/methods/test_occlusion.py::test_an_image_of_a_keras_model[window3",
    "tests/methods/test_occlusion.py::test_several_classes_at_once[saved",
    "tests/methods/test_rise.py::test_an_image_of_a_keras_model[2-saved",
    "tests/methods/test_upsample.py::test_maps_get_the_size_of_the_input[3",
    "tests/methods/test_without_gradients.py::test_steps_of_a_keras_model[saved",
    "tests/runtime/test_generation.py::test_a_prediction_behind_the_last_token[argmax-8",
    "tests/runtime/texts/test_hub.py::test_word_pieces[False-True",
    "tests/runtime/texts/test_hub.py::test_word_pieces[True-False",
    "tests/sources/keras/texts/test_attached.py::test_a_tokenizer_inside_of_a_model[bytes",
    "tests/sources/keras/texts/test_token_model.py::test_texts_through_the_artefact[nested",
    "tests/sources/keras/test_masks_on_a_path.py::test_a_mask_that_is_fed",
    "tests/sources/keras/to_onnx/test_recurrent_layers.py::test_every_kind_is_one_operator_a_cell_and_no_loop[all",
    "tests/sources/keras/to_onnx/test_recurrent_layers.py::test_predictions_and_gradients_are_those_of_the_untouched_model[all",
    "tests/sources/keras/test_time_distributed.py::test_artefacts_are_right_at_other_sizes[savedmodel",
    "tests/sources/onnx/test_large_files.py::test_more_than_two_gigabytes",
    "tests/sources/onnx/test_keras_exports.py::test_every_point_can_be_probed[along rows",
    "tests/test_compiler.py::test_savedmodel_agrees_and_serves_plainly[transformer",
)
