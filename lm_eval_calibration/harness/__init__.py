"""Everything private of lm-evaluation-harness that tasks need: index, registry, groups, ranks, patches."""
