//! The contract of engines: one suite, instantiated for every engine and SIMD level.
//!
//! The tests of a verb lie in `tests/verbs/<verb>.rs` as functions of a [`Subject`]; [`contract_tests!`] makes a module of
//! named tests of them for each engine. `can_fail.rs` runs them on an engine that answers wrongly.

mod coder;
mod compare;
mod data;
mod engines;
mod naive;
#[path = "../noted.rs"]
mod noted;
#[path = "../task/mod.rs"]
mod task;

#[path = "../verbs/assign.rs"]
mod assign;
#[path = "../verbs/distance.rs"]
mod distance;
#[path = "../verbs/matmul.rs"]
mod matmul;
#[path = "../verbs/normalize.rs"]
mod normalize;
#[path = "../verbs/range.rs"]
mod range;
#[path = "../verbs/refine.rs"]
mod refine;
#[path = "../verbs/scan.rs"]
mod scan;
#[path = "../verbs/search_screens.rs"]
mod screens;
#[path = "../verbs/search.rs"]
mod search;
#[path = "../verbs/segment_sum.rs"]
mod segment_sum;
#[path = "../verbs/select_k.rs"]
mod select_k;

mod can_fail;
mod whole;

use engines::Subject;

/// A module of tests for one engine: `contract_tests!(module, expression that gives an Option<Subject>)`. Without a
/// subject (a SIMD level that this machine lacks) the tests pass; the expression has said so, or has failed.
macro_rules! contract_tests {
    ($module:ident, $subject:expr) => {
        contract_tests!($module, $subject;
            distance: row_b1_every_metric_at_every_dim row_b1_every_dtype row_b1_tiny_distances_of_large_rows
                row_b1_large_norms row_b1_nearly_equal_distributions row_b1_strided_rows
                row_b1_more_rows_than_a_grid_has_groups row_e7_zero_rows row_e7_denormals row_e7_empty;
            matmul: row_f1_sizes_at_tile_edges row_f2_products_stay_on_the_device row_e7_empty wrong_shapes_are_errors;
            normalize: row_b2_every_norm row_b2_zero_huge_and_tiny_rows row_b2_other_dtypes row_e7_empty;
            search: row_b4_every_k row_b4_tile_edges row_b4_one_query_on_many_rows row_b4_every_metric row_b4_every_dtype row_b4_filters
                row_b4_screen_gives_lower_bounds row_b4_screened_search_is_exact row_b4_screen_with_filters
                row_b4_screen_of_nearly_equal_rows row_b4_strided_rows row_b4_more_rows_than_a_grid_has_groups
                row_b1_tiny_distances_of_large_rows row_e7_ties row_e7_duplicates row_e7_zero_rows
                row_e7_orthogonal_rows_tie row_e7_overflowing_distances row_e7_empty;
            screens: row_b8_bounds_of_every_metric row_b8_screened_search_is_exact row_b8_filters row_b8_adversarial_rows
                row_b8_codes_that_do_not_fit row_b8_any_shape;
            segment_sum: row_b7_sizes row_e6_same_bits_twice row_b7_after_an_assignment row_e7_empty wrong_shapes_are_errors;
            select_k: row_b3_every_k row_b3_long_segments row_b3_special_keys row_b3_equal_keys row_b3_many_segments
                row_b3_after_distance row_e7_empty;
            refine: row_b13_every_metric row_b13_holes_and_repeats row_b13_many_queries row_e7_empty;
            assign: row_b7_every_metric row_b7_tile_edges row_b7_near_ties row_b7_many_points
                row_b7_behind_codes row_b7_ties_behind_codes row_e7_ties
                row_e7_zero_rows row_e7_empty;
            range: row_b5_every_metric row_b5_inclusive_radius row_b5_all_and_none row_b5_filters row_b5_many_queries
                row_e7_empty;
            scan: row_c3_every_form row_c3_dims_at_word_edges row_c3_list_lengths row_c3_every_keep row_c3_ties
                row_c3_many_queries row_c9_filters row_c8_changed_lists_are_seen row_c1_appended_rows_are_seen row_e7_empty wrong_shapes_are_errors;
            whole: row_b4_b5_b13_any_shape row_a1_same_ids_as_the_cpu row_c1_appended_and_changed_rows_are_seen row_e4_concurrent_searches_agree
                row_e6_same_bits_twice wrong_shapes_are_errors stats_tell_what_ran ceilings_are_measured;
        );
    };
    ($module:ident, $subject:expr; $($verb:ident: $($test:ident)+;)+) => {
        mod $module {
            $(mod $verb {
                $(#[test]
                fn $test() {
                    if let Some(subject) = $subject {
                        crate::$verb::$test(&subject);
                    }
                })+
            })+
        }
    };
}

contract_tests!(references, crate::engines::references());
contract_tests!(cpu_portable, crate::engines::cpu(nearfield::cpu::Level::Portable));
#[cfg(target_arch = "x86_64")]
contract_tests!(cpu_avx2, crate::engines::cpu(nearfield::cpu::Level::Avx2));
#[cfg(target_arch = "x86_64")]
contract_tests!(cpu_avx512, crate::engines::cpu(nearfield::cpu::Level::Avx512));
#[cfg(target_arch = "aarch64")]
contract_tests!(cpu_neon, crate::engines::cpu(nearfield::cpu::Level::Neon));
#[cfg(feature = "gpu")]
contract_tests!(gpu_0, crate::engines::gpu(0));
#[cfg(feature = "gpu")]
contract_tests!(gpu_1, crate::engines::gpu(1));
#[cfg(feature = "gpu")]
contract_tests!(gpu_plain, crate::engines::gpu_plain());
