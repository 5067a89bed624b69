"""Tests that take long and try again, more widely, what a shorter one tries as well.

`make test` leaves them out, `make test-wide` runs them alone, plain `pytest` and CI run all.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping

# By file: beginnings of the names of tests. Of each subject something cheaper stays in the short
# run: another format, size, seed, kind of layer or form of gate of the same test, or another test
# of the same file.
_LONG: Mapping[str, tuple[str, ...]] = {
    "artefact/test_killed_exports.py": (
        "test_killed_between_any_two_moves[two graphs-one file",
        "test_killed_between_any_two_moves[two graphs-two graphs",
        "test_killed_between_any_two_moves[with data",
    ),
    "bench/test_bench.py": ("test_digits_end_to_end",),
    "bulk/test_job.py": (
        "test_killed_at_random_moments",
        "test_memory_does_not_grow",
    ),
    "cli/test_compile.py": ("test_custom_classes_are_imported",),
    "cli/test_generate.py": ("test_texts",),
    "cli/test_main.py": ("test_a_process_keeps_its_streams_apart",),
    "cli/test_preprocessing.py": ("test_a_folder_of_photos_goes_in_as_bytes",),
    "cli/test_run.py": ("test_run_with_tokens[t.txt",),
    "cost/test_report.py": (
        "test_bytes_are_those_of_real_outputs[transformer",
        "test_gradients_of_recurrent_layers_of_any_length[GRU",
        "test_gradients_of_recurrent_layers_of_any_length[LSTM",
        "test_gradients_of_recurrent_layers_of_any_length[SimpleRNN",
        "test_the_export_does_what_was_told[forecaster",
        "test_the_export_does_what_was_told[transformer",
    ),
    "examples/test_examples.py": (
        "test_demo_leaves_artefacts_pictures_and_a_report",
        "test_recipe_runs_and_its_artefact_answers[custom_attention",
        "test_recipe_runs_and_its_artefact_answers[feature_maps",
    ),
    "examples/test_gallery.py": (
        "test_a_page_with_a_card",
        "test_an_image_has_its_best_input",
        "test_the_catalogue_takes",
    ),
    "examples/test_sequence_examples.py": ("test_example_leaves",),
    "fuzz/test_artefacts_fuzz.py": (
        "test_hostile_artefacts_are_refused_or_right[120",
        "test_hostile_artefacts_are_refused_or_right[40",
        "test_hostile_artefacts_are_refused_or_right[80",
    ),
    "fuzz/test_endurance_fuzz.py": ("test_",),
    "fuzz/test_keras_fuzz.py": (
        "test_a_case_is_cut_down_to_what_shows_the_fault",
        "test_more_random_models_are_right",
        "test_random_models_are_right[1]",
        "test_random_models_are_right[8",
        "test_states_are_compared_with_those_of_the_stateful_model",
        "test_the_witness_tells_each_of_its_methods_from_a_wrong_one",
    ),
    "fuzz/test_onnx_fuzz.py": ("test_random_graphs_are_right[7",),
    "graph/passes/before/test_fold_weights.py": ("test_a_model_comes_out_the_same",),
    "graph/passes/test_any_graph.py": ("test_each_pass_alone_and_all_in_a_row",),
    "graph/test_open_sizes.py": (
        "test_height_and_width[moved about-True",
        "test_height_and_width[padded-True",
        "test_time[recurrent-True",
    ),
    "graph/test_transformer_blocks.py": (
        "test_an_encoder_with_the_approximation",
        "test_convnext",
        "test_every_method_passes_them",
    ),
    "graph/vjp/test_pooling.py": ("test_averages_are_those_of_tensorflow[1",),
    "graph/vjp/test_recurrent_layers.py": (
        "test_gradients_agree_with_tensorflow[ConvLSTM2D",
        "test_gradients_agree_with_tensorflow[GRU, both ways",
    ),
    "graph/vjp/test_sampling.py": (
        "test_gradient[GridSample-mode=cubic padding_mode=zeros align_corners=1-opset20",
    ),
    "graph/vjp/test_table.py": ("test_rules_write_what_the_opset_has[13",),
    "methods/test_attention.py": (
        "test_layers_of_one_shape_are_one_tensor[savedmodel",
        "test_stacked_layers_in_another_type[savedmodel",
        "test_what_is_left[savedmodel",
    ),
    "methods/test_attention_on_grids.py": (
        "test_a_softmax_over_two_axes_of_open_sizes",
        "test_it_is_that_of_one_sequence_of_all_positions[frames",
        "test_it_is_that_of_one_sequence_of_all_positions[rows, columns and all",
        "test_tensorflow_computes_it_too",
    ),
    "methods/test_attention_relevance.py": (
        "test_a_wrong_gradient_is_found_beside_the_identity[Keras",
        "test_an_encoder_and_a_decoder[keras",
        "test_each_layer_adds_its_weights_times_their_gradients[Keras",
        "test_layers_that_the_target_does_not_depend_on_are_left_out",
        "test_several_classes_at_once[Keras",
        "test_several_classes_at_once[SavedModel",
        "test_tensorflow_computes_it_too",
        "test_two_outputs_of_a_model_are_told_apart",
    ),
    "methods/test_attention_rollout.py": (
        "test_it_is_the_product_of_the_layers_matrices[causal",
        "test_tensorflow_computes_it_too[m.keras",
        "test_tensorflow_computes_it_too[saved",
    ),
    "methods/test_cams.py": (
        "test_keras_maps_are_those_of_a_tape[1",
        "test_keras_maps_are_those_of_a_tape[3",
    ),
    "methods/test_cams_by_scores.py": (
        "test_an_image[saved",
        "test_maps_in_the_size_of_the_input_and_open_sizes",
        "test_other_numbers_of_axes[3-D",
    ),
    "methods/test_channels_first.py": ("test_what_channels_first_say",),
    "methods/test_completeness.py": (
        "test_several_classes_and_contrasts[m.onnx",
        "test_several_classes_and_contrasts[saved",
        "test_tokens",
    ),
    "methods/test_deep_lift.py": (
        "test_a_recurrent_network_of_keras",
        "test_completeness_against_the_untouched_model[1",
        "test_tokens_start_from_embeddings_at_the_baseline",
    ),
    "methods/test_every_method.py": (
        "test_a_row_does_not_depend_on_its_neighbours[tokens",
        "test_all_of_them_are_verified_in_one_artefact[tokens",
        "test_both_sources_say_the_same[tokens",
        "test_other_weights_give_another_answer[tokens",
        "test_the_gate_leaves_them_all_out[tokens",
        "test_the_manifest_says_what_comes_out[tokens",
    ),
    "methods/test_games.py": (
        "test_exact_shapley_values_of_groups_of_a_keras_model[saved",
        "test_tokens_and_open_sizes",
    ),
    "methods/test_gradients_at_points.py": (
        "test_a_saved_model_and_an_instrumented_one",
        "test_from_a_keras_model",
        "test_openvino_makes_the_same_noise",
    ),
    "methods/test_groups_of_a_request.py": (
        "test_groups_and_several_classes[m.onnx",
        "test_groups_and_several_classes[saved",
        "test_superpixels_of_a_picture[saved",
    ),
    "methods/test_guided_backprop.py": (
        "test_behind_recurrent_layers",
        "test_cells_of_every_form_keep_their_gradients",
    ),
    "methods/test_guided_through_time.py": ("test_layers_of_keras",),
    "methods/test_lrp.py": ("test_a_transformer_and_its_onnx_export_say_the_same",),
    "methods/test_occlusion.py": (
        "test_a_fixed_batch_and_states_run_one_point_at_a_time",
        "test_several_classes_at_once[saved",
        "test_tensorflow_says_the_same[saved",
        "test_tokens_are_filled_where_they_are_looked_up",
    ),
    "methods/test_per_token.py": (
        "test_every_length_agrees_with_the_tape_of_the_untouched_model",
        "test_padding_is_zero_whatever_the_model_makes_of_it",
    ),
    "methods/test_region.py": (
        "test_a_segmentation[sizes0-saved",
        "test_a_segmentation[sizes1",
        "test_other_methods_weigh_alike",
    ),
    "methods/test_rise.py": ("test_an_image_of_a_keras_model[2-saved",),
    "methods/test_rules_through_loops.py": (
        "test_a_convolutional_cell_whatever",
        "test_an_open_length",
    ),
    "methods/test_upsample.py": (
        "test_maps_get_the_size_of_the_input[2",
        "test_maps_get_the_size_of_the_input[3",
        "test_open_sizes",
    ),
    "methods/test_without_gradients.py": ("test_steps_of_a_keras_model[saved",),
    "mutants/test_trials.py": (
        "test_what_the_tests_say_of_a_change[-60-0",
        "test_what_the_tests_say_of_a_change[this is no Python",
    ),
    "parity/test_costly_methods.py": ("test_predictions_are_tried_at_the_usual_sizes_too",),
    "parity/test_kinks.py": (
        "test_equal_maxima_are_no_disagreement",
        "test_wrong_gradients_at_kinks_are_found[everywhere",
        "test_wrong_gradients_at_kinks_are_found[larger",
        "test_wrong_gradients_at_kinks_are_found[turned",
    ),
    "runs_where/test_running.py": (
        "test_a_recurrent_model",
        "test_in_a_process_of_its_own[TensorFlow",
    ),
    "runtime/engines/test_agreement.py": (
        "test_no_attribute_or_input_of_a_form_that_is_misread[masked",
        "test_openvino_agrees_with_onnxruntime[lstm-off",
        "test_openvino_agrees_with_onnxruntime[masked-off",
        "test_openvino_agrees_with_onnxruntime[transformer-ungated",
        "test_openvino_alone_from_memory[lstm",
        "test_openvino_alone_from_memory[masked",
        "test_openvino_alone_from_memory[transformer",
        "test_tensorflow_agrees_with_onnxruntime[lstm",
        "test_tensorflow_agrees_with_onnxruntime[transformer",
        "test_the_evaluator_of_onnx_agrees_with_onnxruntime[lstm-ungated",
    ),
    "runtime/metrics/test_removal.py": ("test_tokens_are_replaced_by_an_id",),
    "runtime/plot/test_class_panels.py": ("test_a_panel_a_class_of_a_table_a_series_and_a_text",),
    "runtime/test_generation.py": (
        "test_a_prediction_behind_the_last_token[argmax-8",
        "test_a_prediction_behind_the_last_token[input",
        "test_drawing_tokens",
        "test_rows_of_other_scores_are_refused",
        "test_texts_of_several_lengths",
        "test_the_tokens_that_keras_hub_writes",
    ),
    "runtime/test_one_class.py": ("test_figures_and_reports_of_all",),
    "runtime/test_report.py": ("test_a_browser_shows_what_is_chosen[#",),
    "runtime/test_verification.py": ("test_all_forms_of_artefacts[SavedModel",),
    "runtime/texts/test_hub.py": (
        "test_word_pieces[False-False",
        "test_word_pieces[False-True",
        "test_word_pieces[True-False",
    ),
    "serve/config/test_config.py": ("test_texts_are_warmed_up",),
    "sources/keras/test_attention_families.py": (
        "test_both_directions",
        "test_relevance_behind_a_loop",
        "test_weights_in_a_cell_are_given_over_time[{'go_backwards': True}",
        "test_weights_in_a_cell_are_given_over_time[{'length': 4}",
        "test_weights_in_a_cell_are_given_over_time[{}",
    ),
    "sources/keras/test_attention_in_keras_hub.py": (
        "test_a_rollout_over_patches_of_open_batch",
        "test_heads_in_groups_that_share_keys",
        "test_the_prediction_follows_from_the_weights[D",
        "test_the_prediction_follows_from_the_weights[G",
        "test_the_prediction_follows_from_the_weights[L",
        "test_the_prediction_follows_from_the_weights[S",
        "test_the_prediction_follows_from_the_weights[T",
        "test_the_prediction_follows_from_the_weights[V",
    ),
    "sources/keras/test_axes.py": (
        "test_channels_first_artefacts[.onnx",
        "test_channels_first_artefacts[]",
        "test_grad_cam_of_one_call_and_over_saving",
    ),
    "sources/keras/test_caches.py": (
        "test_a_text_is_written_on_with_it",
        "test_heads_that_share_keys_and_a_window",
        "test_it_is_verified_from_its_manifest",
    ),
    "sources/keras/test_control_flow.py": (
        "test_loops_of_any_length[scanned-m.onnx",
        "test_what_is_no_associative_operation_is_not_passed_over",
    ),
    "sources/keras/test_exchanging.py": ("test_token_gradients_beside_attention_relevance",),
    "sources/keras/test_explicit_states.py": (
        "test_a_decoder_keeps_the_states_of_its_encoder",
        "test_a_savedmodel_has_them_too",
        "test_a_stateful_model_goes_on_as_it_does",
        "test_convolutional_states_have_positions",
        "test_what_cannot_be_run_in_chunks",
    ),
    "sources/keras/test_first_floats.py": (
        "test_all_look_ups_of_an_input_together_are_complete[sentences",
        "test_bytes_of_an_image_are_explained_at_full_resolution",
        "test_look_ups_in_onnx[columns",
        "test_names_hold_when_a_model_is_instrumented_again",
    ),
    "sources/keras/test_in_double.py": (
        "test_hard_samples_that_hang_on_digits_of_a_sigmoid",
        "test_loops_variables_and_scores_of_hidden",
    ),
    "sources/keras/test_instrumented.py": (
        "test_layers_that_keras_numbers_anew_keep_their_outputs",
        "test_save_and_load_in_a_fresh_process",
    ),
    "sources/keras/test_layers_in_loops.py": (
        "test_layers_of_a_cell_come_out_over_time[all",
        "test_layers_of_a_cell_come_out_over_time[backwards,",
        "test_layers_of_a_cell_come_out_over_time[last",
        "test_layers_of_a_cell_come_out_over_time[unrolled backwards",
        "test_a_loop_in_every_frame",
    ),
    "sources/keras/test_masks_on_a_path.py": (
        "test_a_mask_that_is_fed",
        "test_in_onnx[behind a layer",
        "test_in_onnx[passed",
        "test_masks_are_those_of_the_input[behind a layer",
        "test_masks_are_those_of_the_input[passed",
    ),
    "sources/keras/test_nudges.py": (
        "test_a_state_counts_by_its_later_steps_as_well",
        "test_fused_operators_stay",
        "test_it_is_the_gradient_by_all",
        "test_layers_that_keras_numbers_anew",
    ),
    "sources/keras/test_open_sizes.py": ("test_center_crop_resizes_images_that_are_too_small",),
    "sources/keras/test_recurrence.py": (
        "test_a_layer_at_each_step_of_another_time",
        "test_a_wrong_gate_is_found",
        "test_a_wrong_state_is_found",
        "test_all_of_them_are_verified",
        "test_calls_are_told_apart_though_keras_runs_the_second_one_first",
        "test_cells_of_keras_are_not_run_once_more",
        "test_convolutional_states_have_positions",
        "test_gates_make_the_next_state",
        "test_gates_of_layers_that_compute_in_halves",
        "test_states_are_those_of_the_cells",
        "test_the_other_formats_agree",
        "test_what_has_none_is_refused_by_name",
    ),
    "sources/keras/test_tape.py": (
        "test_integrated_gradients_at_an_embedding",
        "test_integrated_gradients_at_layers_behind_each_other",
    ),
    "sources/keras/test_time_distributed.py": (
        "test_artefacts_are_right_at_other_sizes[onnx-2-5",
        "test_artefacts_are_right_at_other_sizes[savedmodel",
        "test_layers_inside_have_an_axis_for_time[savedmodel",
        "test_letters_of_a_known_number_of_words",
    ),
    "sources/keras/test_two_names.py": ("test_engines_agree[saved",),
    "sources/keras/texts/test_attached.py": (
        "test_a_classifier_of_texts",
        "test_a_tokenizer_inside_of_a_model[bytes",
        "test_a_tokenizer_inside_of_a_model[word pieces",
        "test_pairs_as_samples_and_at_the_command_line",
        "test_pairs_that_the_runtime_takes_apart_otherwise_are_found",
    ),
    "sources/keras/texts/test_fewest_words.py": ("test_texts_that_are_too_short",),
    "sources/keras/texts/test_token_model.py": ("test_several_texts_and_layers",),
    "sources/keras/to_onnx/test_canonical.py": ("test_two_processes_write_the_same_bytes",),
    "sources/keras/to_onnx/test_handlers.py": (
        "test_recurrence_that_no_fused_operator_computes[mixed_float16-GRU",
        "test_transforms_of_an_open_length",
        "test_windows_further_apart_than_large_at_open_sizes",
    ),
    "sources/keras/to_onnx/test_opsets.py": (
        "test_an_opset_is_written_right[15-gated",
        "test_an_opset_is_written_right[21-text",
    ),
    "sources/keras/to_onnx/test_put_back_nan.py": (
        "test_results_are_nan_where_those_of_keras_are",
    ),
    "sources/keras/to_onnx/test_recurrent_layers.py": (
        "test_a_fixed_batch_keeps_the_operators",
        "test_every_kind_is_one_operator_a_cell_and_no_loop",
        "test_fixed_sizes_unrolled_and_stateful",
        "test_other_cells_precisions_and_activations",
        "test_predictions_and_gradients_are_those_of_the_untouched_model[all",
        "test_predictions_and_gradients_are_those_of_the_untouched_model[few kinds, masked",
        "test_some_rules_have_few_steps",
    ),
    "sources/keras/to_onnx/test_tf2onnx_transposes.py": ("test_as_eager_keras[3-6-1",),
    "sources/onnx/test_keras_exports.py": (
        "test_attention_is_what_the_layers_say[along rows",
        "test_attention_is_what_the_layers_say[cross, open-2",
        "test_every_point_can_be_probed[along rows",
        "test_every_point_can_be_probed[fixed time",
        "test_gradients_are_those_of_the_model[along rows",
    ),
    "sources/onnx/test_large_files.py": ("test_more_than_two_gigabytes",),
    "sources/onnx/test_loop_bodies.py": (
        "test_a_decoder_gives_its_attention_over_time[Loop-False",
    ),
    "sources/onnx/test_nudges.py": (
        "test_it_is_the_gradient_by_all_that_a_state_goes_into[GRU, both ways",
    ),
    "sources/test_preprocessed.py": ("test_a_saved_model_says_what_onnx_says",),
    "sweep/test_sweep.py": (
        "test_a_row_agrees[Conv1D: causal, dilation 2",
        "test_a_row_agrees[Conv2DTranspose: same, stride over kernel",
        "test_a_row_agrees[Conv3D: groups",
        "test_a_row_agrees[EinsumDense: heads",
        "test_a_row_agrees[LSTM: masked",
        "test_a_row_agrees[MaxPooling2D: overlapping, same",
        "test_a_row_agrees[MultiHeadAttention: mask",
        "test_a_row_agrees[SeparableConv2D: same, stride 2",
        "test_a_row_agrees[UpSampling2D: bicubic",
        "test_a_row_agrees[activations.gelu: exact",
        "test_a_row_agrees[ops.logaddexp",
    ),
    "test_compiler.py": (
        "test_savedmodel_agrees_and_serves_plainly[forecaster",
        "test_savedmodel_agrees_and_serves_plainly[transformer",
        "test_savedmodels_of_unusual_models[masked",
        "test_savedmodels_of_unusual_models[stateful",
    ),
    "test_guides.py": (
        "test_a_guide_runs[images",
        "test_a_guide_runs[series",
        "test_a_guide_runs[tables",
        "test_a_guide_runs[text",
    ),
    "test_layout.py": ("test_each_function_may_be_the_first_thing_used",),
    "test_left_padding.py": ("test_",),
    "test_litert.py": (
        "test_explanations[cnn",
        "test_explanations[transformer",
        "test_loops_over_points_stay_loops",
        "test_one_wrong_sample_is_found[scores-2",
        "test_pictures_as_they_arrive",
        "test_predictions_from_the_command_line",
        "test_recurrent_layers_of_a_fixed_length",
    ),
    "test_no_probes.py": ("test_predictions_alone[saved",),
    "test_same_bytes.py": (
        "test_all_files_are_compared",
        "test_the_same_bytes",
        "test_two_saved_models_give_the_same_numbers",
    ),
    "test_sequences.py": (
        "test_each_word_of_a_decoder_is_explained_by_the_source",
        "test_the_greedy_path_of_ctc",
    ),
    "test_steps.py": (
        "test_each_is_what_the_step_alone_gives",
        "test_pictures_and_reports",
        "test_the_best_class_at_each_step_is_the_greedy_path",
        "test_the_file_does_not_grow_with_the_steps",
    ),
    "test_targets.py": (
        "test_a_savedmodel_and_the_instrumented_model_say_the_same",
        "test_each_class_has_what_it_has_alone[keras-top:3",
        "test_sequences_have_their_best_classes_at_each_step",
        "test_the_score_of_a_layer",
    ),
    "test_vertex.py": ("test_ids_are_explained_one_number_a_token",),
}

# By file: tables of cases that are alike. Of these the short run tries every fourth, the first
# among them.
_TABLES: Mapping[str, tuple[str, ...]] = {
    "artefact/test_explain_file.py": ("test_a_process_that_is_killed_while_it_moves_files",),
    "artefact/test_killed_exports.py": (
        "test_a_full_disk",
        "test_an_export_waits_for_the_moves_of_another",
        "test_killed_at_random_moments",
        "test_killed_between_any_two_moves",
    ),
    "fuzz/test_keras_fuzz.py": ("test_random_models_are_right",),
    "fuzz/test_onnx_fuzz.py": ("test_an_attribution_has_a_witness",),
    "graph/loops/test_block_writer.py": ("test_running_sums",),
    "graph/test_open_sizes.py": (
        "test_height_and_width",
        "test_time",
    ),
    "graph/test_preprocessing.py": (
        "test_openvino_gives_the_same_numbers",
        "test_resizing_is_that_of_keras",
    ),
    "graph/vjp/test_activation.py": ("test_gradient",),
    "graph/vjp/test_convolution.py": ("test_gradient_is_that_of_the_loops",),
    "graph/vjp/test_edges.py": ("test_keras_at_the_edge",),
    "graph/vjp/test_elementwise.py": ("test_gradient",),
    "graph/vjp/test_linear.py": ("test_gradient",),
    "graph/vjp/test_normalisation.py": ("test_gradient",),
    "graph/vjp/test_onnx_cases.py": ("test_a_published_case",),
    "graph/vjp/test_max_pooling.py": ("test_gradient_goes_to_the_first_greatest",),
    "graph/vjp/test_recurrent.py": (
        "test_float32_in_onnxruntime_agrees_with_float64",
        "test_gradients_agree_with_the_complex_step",
    ),
    "graph/vjp/test_recurrent_layers.py": ("test_gradients_agree_with_tensorflow",),
    "graph/vjp/test_recurrent_steps.py": (
        "test_gradients_agree_with_differences_of_the_equations",
    ),
    "graph/vjp/test_reduce.py": ("test_gradient",),
    "graph/vjp/test_sampling.py": ("test_gradient",),
    "graph/vjp/test_selection.py": ("test_gradient",),
    "graph/vjp/test_signal.py": ("test_gradient",),
    "methods/test_a_new_method.py": ("test_its_values_are_the_tapes_and_verified",),
    "methods/test_at_layers.py": ("test_gradient_times_input_is_that_of_a_tape",),
    "methods/test_attention.py": ("test_what_is_left",),
    "methods/test_attention_on_grids.py": ("test_it_is_that_of_one_sequence_of_all_positions",),
    "methods/test_attention_relevance.py": (
        "test_a_wrong_gradient_is_found_beside_the_identity",
        "test_each_layer_adds_its_weights_times_their_gradients",
    ),
    "methods/test_attention_rollout.py": ("test_it_is_the_product_of_the_layers_matrices",),
    "methods/test_cams.py": ("test_keras_maps_are_those_of_a_tape",),
    "methods/test_concept_sensitivity.py": ("test_slopes_are_those_of_a_tape",),
    "methods/test_deep_lift.py": (
        "test_completeness_against_the_untouched_model",
        "test_functions_of_one_tensor_pass_dy_over_dx_however_they_are_spelled",
    ),
    "methods/test_games.py": ("test_ablation_of_groups",),
    "methods/test_gradients_at_points.py": (
        "test_the_result_does_not_depend_on_how_many_points_run_at_once",
    ),
    "methods/test_guided_backprop.py": (
        "test_each_rectifier_however_it_is_spelled",
        "test_keras_activations",
    ),
    "mutants/test_trials.py": ("test_what_the_tests_say_of_a_change",),
    "parity/test_planted_errors.py": ("test_planted_errors_are_found",),
    "plan/test_chains.py": (
        "test_layers_of_one_stream",
        "test_what_cannot_be_chained_is_refused_by_name",
    ),
    "plan/test_single_positions.py": ("test_maps_are_taken_where_all_positions_count",),
    "quantisation/test_quantise.py": ("test_smaller_and_near",),
    "runs_where/test_running.py": ("test_a_cnn",),
    "runtime/engines/test_agreement.py": (
        "test_openvino_agrees_with_onnxruntime",
        "test_the_evaluator_of_onnx_agrees_with_onnxruntime",
    ),
    "runtime/engines/test_openvino.py": ("test_element_types",),
    "runtime/plot/test_contributions.py": ("test_forms_are_legible",),
    "runtime/plot/test_forecast.py": ("test_forecast_and_truth_behind_the_past",),
    "runtime/test_drift.py": ("test_false_alarms_are_rare_where_nothing_moves",),
    "runtime/test_legible.py": ("test_legible",),
    "runtime/test_plot_sequences.py": ("test_dates_of_any_distance_are_labelled",),
    "sources/keras/test_attention.py": ("test_a_softmax_that_weighs_values_is_attention",),
    "sources/keras/test_attention_families.py": (
        "test_the_weights_are_those_of_the_untouched_model",
        "test_weights_in_a_cell_are_given_over_time",
    ),
    "sources/keras/test_axes.py": (
        "test_a_dilated_convolution_is_one_node",
        "test_axes_are_named_by_the_layers_that_make_and_read_them",
        "test_nothing_that_is_traced_needs_channels_first_kernels",
    ),
    "sources/keras/test_control_flow.py": ("test_loops_of_any_length",),
    "sources/keras/test_first_floats.py": (
        "test_all_look_ups_of_an_input_together_are_complete",
        "test_layers_that_resize_bytes",
    ),
    "sources/keras/test_graph_copy.py": ("test_a_copy_computes_the_same",),
    "sources/keras/test_in_double.py": (
        "test_small_errors_are_refused_beside_what_rounding_allows_in_hard_samples",
    ),
    "sources/keras/test_look_ups.py": (
        "test_codes_are_looked_up_as_by_keras",
        "test_codes_beside_numbers_are_explained_unasked",
    ),
    "sources/keras/test_masks_on_a_path.py": (
        "test_in_onnx",
        "test_masks_are_those_of_the_input",
    ),
    "sources/keras/test_plain_operations.py": ("test_pooling",),
    "sources/keras/test_preprocessing.py": ("test_every_way_is_that_of_keras_and_of_numpy",),
    "sources/keras/test_randomness.py": (
        "test_layers_that_draw_are_named",
        "test_what_does_not_differ_from_call_to_call_is_no_draw",
    ),
    "sources/keras/test_rounding_noise.py": (
        "test_equal_ids_may_stand_for_each_other_and_nothing_else_may",
    ),
    "sources/keras/test_tape.py": ("test_targets_are_of_logits",),
    "sources/keras/test_time_distributed.py": (
        "test_artefacts_are_right_at_other_sizes",
        "test_predictions_are_those_of_the_untouched_model",
    ),
    "sources/keras/test_two_names.py": ("test_the_gradient_is_of_what_reads_the_layer",),
    "sources/keras/texts/test_attached.py": ("test_pairs_of_texts",),
    "sources/keras/texts/test_token_model.py": ("test_texts_through_the_artefact",),
    "sources/keras/to_onnx/test_handlers.py": (
        "test_an_operation_agrees_on_hard_samples",
        "test_diagonals",
        "test_functions_of_float64_are_exact",
        "test_patches_and_spectra",
        "test_recurrence_that_no_fused_operator_computes",
    ),
    "sources/keras/to_onnx/test_opsets.py": ("test_an_opset_is_written_right",),
    "sources/keras/to_onnx/test_tf2onnx_transposes.py": ("test_as_eager_keras",),
    "sources/onnx/test_explicit_states.py": ("test_two_chunks_give_what_the_whole_gives",),
    "sources/onnx/test_keras_exports.py": (
        "test_attention_is_what_the_layers_say",
        "test_every_point_can_be_probed",
        "test_gradients_are_those_of_the_model",
    ),
    "sources/onnx/test_loop_bodies.py": ("test_a_decoder_gives_its_attention_over_time",),
    "sources/onnx/test_reference.py": (
        "test_a_wrong_rule_is_refused",
        "test_differences_confirm_right_rules",
    ),
    "sources/test_preprocessed.py": ("test_attributions_over_the_picture",),
    "sweep/test_tensorflow_ops.py": ("test_a_row_agrees",),
    "test_compiler.py": (
        "test_onnx_agrees_with_tensorflow",
        "test_onnx_of_unusual_models",
        "test_savedmodels_of_unusual_models",
    ),
    "test_litert.py": ("test_one_wrong_sample_is_found",),
    "test_stages.py": (
        "test_disks_that_cannot_be_written",
        "test_foreign_exceptions_come_out_as_ours",
    ),
    "test_targets.py": ("test_each_class_has_what_it_has_alone",),
}


def _whole(tests: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the names as pytest says them."""
    return tuple(f"tests/{file}::{name}" for file, names in tests.items() for name in names)


WIDE = _whole(_LONG)
TABLES = frozenset(_whole(_TABLES))


def wide(names: Iterable[str]) -> Iterator[bool]:
    """Yields of each test, by its name and in the order of collecting, whether it is wide."""
    cases = collections.Counter[str]()
    for name in names:
        table = name.partition("[")[0]
        cases[table] += 1
        of_table = table in TABLES and cases[table] % 4 != 1
        yield of_table or name.startswith(WIDE)
