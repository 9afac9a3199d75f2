"""The group `oip` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("oip")
test_case = case_test("oip")
