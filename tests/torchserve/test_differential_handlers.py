"""The group `handlers` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("handlers")
test_case = case_test("handlers")
