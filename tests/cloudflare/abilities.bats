# README's table of what each server can do is what the servers say.

@test "README's table is what mounts of each kind of server say that they can" {
	cd "$BATS_TEST_DIRNAME/../.."
	timeout 300 tests/cloudflare/abilities --check 3>&-
}
