"""The group `images` of the differential set, against Headway."""

from tests.torchserve.replay import case_test, group_server

server = group_server("images")
test_case = case_test("images")
