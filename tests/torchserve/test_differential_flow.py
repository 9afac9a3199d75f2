"""The group `flow` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("flow")
test_case = case_test("flow")
