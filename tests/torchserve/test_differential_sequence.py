"""The group `sequence` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("sequence")
test_case = case_test("sequence")
