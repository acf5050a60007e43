"""Standard errors, intervals and nulls of whatever metric: nothing here names one."""
