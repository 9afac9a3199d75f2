"""The group `json` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("json")
test_case = case_test("json")
