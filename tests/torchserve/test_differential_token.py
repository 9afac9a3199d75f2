"""The group `token` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("token")
test_case = case_test("token")
