"""The group `turns` of the differential set, against Headway: running batches and asynchronous workers."""

from tests.torchserve.replay import case_test, group_server

server = group_server("turns")
test_case = case_test("turns")
