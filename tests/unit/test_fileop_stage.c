/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/* Stages: what others see before and after COMMIT, whatever happens to the name meanwhile. */
#include "fileop_rig.h"

#include <sys/mount.h>

static int salvage(struct rig *r, uint64_t h, const char *path)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_SALVAGE);
	buf_u64(&r->request, h);
	rig_str(r, rig_path(r, path));
	return rig_one(r, at);
}

static void test_a_new_file_appears_whole(void **state)
{
	struct rig *r = *state;
	struct fileop_attr open_attr, a;
	const char *p;
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0640, &open_attr), 3);
	assert_int_equal(open_attr.nlink, 1);
	assert_int_equal(open_attr.mode, S_IFREG | 0640);
	assert_int_equal(op_write(r, 1, 0, "hello", 5), 0);
	assert_int_equal(count_names(r), 0);
	assert_int_equal(op_getattr(r, 0, "f", NULL), -ENOENT);
	assert_int_equal(op_read(r, 1, NULL, 0, 10, &p), 5);
	assert_int_equal(op_getattr(r, 1, NULL, &a), 0);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.size, 5);
	assert_int_equal(a.ino, open_attr.ino);
	struct timespec mtime = a.mtime;
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(a.ino, open_attr.ino);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.mtime.tv_nsec, mtime.tv_nsec);
	assert_file(r, "f", "hello");
	assert_int_equal(stat_of(r, "f").st_mode, S_IFREG | 0640);
	assert_int_equal(stat_of(r, "f").st_ino, open_attr.ino);
	/* An ordinary handle now. */
	assert_int_equal(op_write(r, 1, 5, "!", 1), 0);
	assert_file(r, "f", "hello!");
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(op_close(r, 1), 0);
	assert_file(r, "f", "hello!");
}

static void test_an_uncommitted_stage_leaves_nothing(void **state)
{
	struct rig *r = *state;
	put_file(r, "old", "old");
	assert_int_equal(op_open(r, 1, "new", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(op_open(r, 2, "old", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_write(r, 1, 0, "x", 1), 0);
	assert_int_equal(op_write(r, 2, 0, "x", 1), 0);
	assert_int_equal(op_close(r, 1), 0);
	assert_int_equal(op_close(r, 2), 0);
	assert_int_equal(count_names(r), 1);
	assert_file(r, "old", "old");
}

static void test_an_existing_file_keeps_inode_links_mode_and_readers(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	char got[16] = {0};
	put_file(r, "f", "the old text");
	assert_int_equal(link(rig_path(r, "f"), rig_path(r, "g")), 0);
	assert_int_equal(chmod(rig_path(r, "f"), 0755), 0);
	struct stat old = stat_of(r, "f");
	AUTO_FD int reader = open(rig_path(r, "f"), O_RDONLY);
	assert_int_equal(op_open(r, 1, "f", STAGE_OVER, 0644, &a), 2);
	assert_int_equal(a.ino, old.st_ino);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(a.mode, S_IFREG | 0755);
	assert_int_equal(a.size, 0);
	assert_int_equal(op_write(r, 1, 0, "new", 3), 0);
	assert_int_equal(op_getattr(r, 1, NULL, &a), 0);
	assert_int_equal(a.size, 3);
	struct timespec mtime = a.mtime;
	assert_int_equal(op_getattr(r, 0, "f", &a), 0);
	assert_int_equal(a.size, 12);
	assert_int_equal(pread(reader, got, sizeof(got), 0), 12);
	assert_string_equal(got, "the old text");
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(a.ino, old.st_ino);
	assert_int_equal(a.size, 3);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(a.mtime.tv_sec, mtime.tv_sec);
	assert_int_equal(a.mtime.tv_nsec, mtime.tv_nsec);
	assert_int_equal(pread(reader, got, sizeof(got), 0), 3);
	assert_memory_equal(got, "new", 3);
	assert_file(r, "g", "new");
	assert_int_equal(stat_of(r, "f").st_mode, S_IFREG | 0755);
	assert_int_equal(op_write(r, 1, 3, "er", 2), 0);
	assert_file(r, "g", "newer");
}

/* What another hand put at the name stays; ours is a file without a name, like one that was removed. */
static void test_a_name_taken_meanwhile_stays_what_it_is(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0640, NULL), 3);
	assert_int_equal(op_write(r, 1, 0, "ours", 4), 0);
	put_file(r, "f", "theirs, and longer");
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(a.size, 4);
	assert_int_equal(op_write(r, 1, 4, "!", 1), 0);
	assert_file(r, "f", "theirs, and longer");
	assert_int_equal(op_salvage(r, 1, "f.ours", &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_file(r, "f.ours", "ours!");
	assert_int_equal(op_open(r, 2, "d", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	assert_int_equal(op_commit(r, 2, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(op_open(r, 3, "l", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(symlink("f", rig_path(r, "l")), 0);
	assert_int_equal(op_commit(r, 3, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_file(r, "f", "theirs, and longer");
}

static void test_a_file_written_by_another_hand_meanwhile_stays(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "old");
	assert_int_equal(chmod(rig_path(r, "f"), 0751), 0);
	assert_int_equal(op_open(r, 1, "f", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_write(r, 1, 0, "ours", 4), 0);
	put_file(r, "f", "theirs");
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_file(r, "f", "theirs");
	assert_int_equal(op_salvage(r, 1, "f.ours", &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0751);
	assert_file(r, "f.ours", "ours");
	/* What changes no byte is no change. */
	assert_int_equal(op_open(r, 2, "f", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_write(r, 2, 0, "next", 4), 0);
	assert_int_equal(chmod(rig_path(r, "f"), 0700), 0);
	assert_int_equal(op_commit(r, 2, &a), 0);
	assert_file(r, "f", "next");
	/* Nor does anybody stand against its being emptied. */
	assert_int_equal(op_open(r, 3, "f", STAGE_OVER, 0644, NULL), 2);
	put_file(r, "f", "a line more");
	assert_int_equal(op_commit(r, 3, &a), 0);
	assert_int_equal(a.nlink, 1);
	assert_file(r, "f", "");
}

static void test_a_renamed_directory_is_harmless(void **state)
{
	struct rig *r = *state;
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	put_file(r, "d/old", "old");
	assert_int_equal(op_open(r, 1, "d/f", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(op_open(r, 2, "d/old", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_write(r, 1, 0, "F", 1), 0);
	assert_int_equal(op_write(r, 2, 0, "O", 1), 0);
	assert_int_equal(rename(rig_path(r, "d"), rig_path(r, "e")), 0);
	assert_int_equal(op_commit(r, 1, NULL), 0);
	assert_int_equal(op_commit(r, 2, NULL), 0);
	assert_file(r, "e/f", "F");
	assert_file(r, "e/old", "O");
}

static void test_a_removed_directory_loses_no_bytes(void **state)
{
	struct rig *r = *state;
	const char *p;
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	assert_int_equal(op_open(r, 1, "d/f", STAGE_NEW, 0640, NULL), 3);
	assert_int_equal(op_write(r, 1, 0, "kept", 4), 0);
	assert_int_equal(rmdir(rig_path(r, "d")), 0);
	assert_int_equal(op_commit(r, 1, NULL), -ENOENT);
	assert_int_equal(op_read(r, 1, NULL, 0, 10, &p), 4);
	assert_int_equal(salvage(r, 1, "f.conflict"), 0);
	assert_file(r, "f.conflict", "kept");
	assert_int_equal(stat_of(r, "f.conflict").st_mode, S_IFREG | 0640);
}

static void test_an_existing_file_unlinked_meanwhile_does_not_come_back(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "old");
	assert_int_equal(op_open(r, 1, "f", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_write(r, 1, 0, "written", 7), 0);
	assert_int_equal(unlink(rig_path(r, "f")), 0);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_false(is_there(r, "f"));
	assert_int_equal(salvage(r, 1, "g"), 0);
	assert_file(r, "g", "written");
}

static void test_attributes_go_to_what_it_becomes(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	struct fileop_setattr s = {
		.valid = FILEOP_SET_MODE | FILEOP_SET_SIZE | FILEOP_SET_MTIME | FILEOP_SET_ATIME,
		.mode = 0711,
		.size = 2,
		.mtime = {1234, 5},
		.atime = {4321, 6}};
	put_file(r, "f", "old text");
	assert_int_equal(op_open(r, 1, "f", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_open(r, 2, "g", STAGE_NEW, 0644, NULL), 3);
	for (uint64_t h = 1; h <= 2; h++) {
		assert_int_equal(op_write(r, h, 0, "abcdef", 6), 0);
		assert_int_equal(op_setattr(r, h, NULL, &s, &a), 0);
		assert_int_equal(a.mode, S_IFREG | 0711);
		assert_int_equal(a.size, 2);
		assert_int_equal(a.mtime.tv_sec, 1234);
	}
	assert_int_equal(stat_of(r, "f").st_mode, S_IFREG | 0711);
	assert_int_equal(stat_of(r, "f").st_size, 8);
	for (uint64_t h = 1; h <= 2; h++) {
		assert_int_equal(op_commit(r, h, &a), 0);
		struct stat st = stat_of(r, h == 1 ? "f" : "g");
		assert_int_equal(st.st_size, 2);
		assert_int_equal(st.st_mode, S_IFREG | 0711);
		assert_int_equal(st.st_mtim.tv_sec, 1234);
		assert_int_equal(st.st_mtim.tv_nsec, 5);
	}
	assert_int_equal(stat_of(r, "g").st_atim.tv_sec, 4321);
}

static void test_fsync_and_link_commit(void **state)
{
	struct rig *r = *state;
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(op_write(r, 1, 0, "a", 1), 0);
	assert_int_equal(op_handle(r, FILEOP_FSYNC, 1), 0);
	assert_file(r, "f", "a");
	assert_int_equal(op_open(r, 2, "g", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(op_write(r, 2, 0, "b", 1), 0);
	assert_int_equal(op_link(r, 2, NULL, "h"), 0);
	assert_file(r, "g", "b");
	assert_int_equal(stat_of(r, "h").st_ino, stat_of(r, "g").st_ino);
}

static void test_appends_stay_appends_after_commit(void **state)
{
	struct rig *r = *state;
	put_file(r, "f", "old");
	assert_int_equal(op_open(r, 1, "f", STAGE_OVER | FILEOP_O_APPEND, 0644, NULL), 2);
	assert_int_equal(op_open(r, 2, "g", STAGE_NEW | FILEOP_O_APPEND, 0644, NULL), 3);
	for (uint64_t h = 1; h <= 2; h++) {
		assert_int_equal(op_write(r, h, 0, "a", 1), 0);
		assert_int_equal(op_write(r, h, 0, "b", 1), 0);
		assert_int_equal(op_commit(r, h, NULL), 0);
		assert_int_equal(op_write(r, h, 0, "c", 1), 0);
		assert_file(r, h == 1 ? "f" : "g", "abc");
	}
}

static void test_what_is_not_staged(void **state)
{
	struct rig *r = *state;
	put_file(r, "f", "old");
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0644, NULL), 0); /* without TRUNC */
	assert_int_equal(op_open(r, 2, "f", FILEOP_O_READ | FILEOP_O_STAGE, 0, NULL), 0);
	assert_int_equal(op_open(r, 3, "lock", STAGE_NEW | FILEOP_O_EXCL, 0644, NULL), 1);
	assert_true(is_there(r, "lock"));
	assert_int_equal(op_write(r, 1, 0, "O", 1), 0);
	assert_file(r, "f", "Old");
}

static void test_holes_are_kept_and_old_bytes_do_not_shine_through(void **state)
{
	struct rig *r = *state;
	enum { MIB = 1 << 20 };
	AUTO_FREE char *old = malloc(3 * MIB), *got = malloc(3 * MIB);
	memset(old, 'x', 3 * MIB);
	AUTO_FD int fd = open(rig_path(r, "f"), O_RDWR | O_CREAT, 0644);
	assert_int_equal(write(fd, old, 3 * MIB), 3 * MIB);
	assert_int_equal(op_open(r, 1, "f", STAGE_OVER, 0644, NULL), 2);
	assert_int_equal(op_write(r, 1, MIB, "mid", 3), 0);
	assert_int_equal(op_write(r, 1, 4 * MIB, "end", 3), 0);
	assert_int_equal(op_commit(r, 1, NULL), 0);
	struct stat st = stat_of(r, "f");
	assert_int_equal(st.st_size, 4 * MIB + 3);
	assert_true(st.st_blocks * 512 < MIB);
	assert_int_equal(pread(fd, got, 3 * MIB, 0), 3 * MIB);
	memset(old, 0, 3 * MIB);
	memcpy(old + MIB, "mid", 3);
	assert_memory_equal(got, old, 3 * MIB);
}

/* Without /proc a nameless file cannot get its name: a temporary one in /tmp does it, outside the workspace. */
static void test_without_proc_a_temporary_name_does_it(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	r->s->has_proc = false;
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0600, NULL), 3);
	struct fileop_client *c = r->s->clients;
	struct fileop_batch b = {.server = r->s, .client = c};
	struct fileop_handle *h = fileop_handle_get(&b, 1);
	assert_non_null(h->temp_name);
	AUTO_FREE char *temp = NULL;
	assert_true(asprintf(&temp, "/tmp/%s", h->temp_name) > 0);
	fileop_handle_put(r->s, h);
	assert_int_equal(access(temp, F_OK), 0);
	assert_int_equal(count_names(r), 0);
	assert_int_equal(op_write(r, 1, 0, "hello", 5), 0);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(access(temp, F_OK), -1);
	assert_file(r, "f", "hello");
	assert_int_equal(op_close(r, 1), 0);
	/* Taken meanwhile, and dropped. */
	assert_int_equal(op_open(r, 2, "g", STAGE_NEW, 0600, NULL), 3);
	assert_int_equal(op_write(r, 2, 0, "G", 1), 0);
	put_file(r, "g", "other");
	assert_int_equal(op_commit(r, 2, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_file(r, "g", "other");
	assert_int_equal(op_salvage(r, 2, "g.ours", &a), 0);
	assert_file(r, "g.ours", "G");
	assert_int_equal(op_open(r, 3, "h", STAGE_NEW, 0600, NULL), 3);
	h = fileop_handle_get(&b, 3);
	free(temp);
	assert_true(asprintf(&temp, "/tmp/%s", h->temp_name) > 0);
	fileop_handle_put(r->s, h);
	assert_int_equal(op_close(r, 3), 0);
	assert_int_equal(access(temp, F_OK), -1);
}

/* A directory whose group goes on to its files: they must not be made elsewhere. */
static void test_where_no_stage_can_be_the_open_says_so(void **state)
{
	struct rig *r = *state;
	r->s->has_proc = false;
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	assert_int_equal(chmod(rig_path(r, "d"), 02755), 0);
	assert_int_equal(op_open(r, 1, "d/f", STAGE_NEW, 0600, NULL), 1);
	assert_int_equal(op_write(r, 1, 0, "now", 3), 0);
	assert_file(r, "d/f", "now");
	assert_int_equal(op_commit(r, 1, NULL), 0);
}

/* A full disk: the old content stays, and so does the stage. Needs a small file system, hence root. */
static void test_a_full_disk_leaves_the_old_file_whole(void **state)
{
	struct rig *r = *state;
	enum { MIB = 1 << 20 };
	assert_int_equal(mkdir(rig_path(r, "small"), 0755), 0);
	if (mount("none", rig_path(r, "small"), "tmpfs", MS_NOSUID | MS_NODEV, "size=4m") < 0)
		skip(); /* not root, or in a sandbox that cannot mount */
	AUTO_FREE char *data = malloc(3 * MIB);
	memset(data, 'n', 3 * MIB);
	put_file(r, "small/f", "precious old text");
	struct stat before = stat_of(r, "small/f");
	int opened = op_open(r, 1, "small/f", STAGE_OVER, 0644, NULL);
	int wrote = op_write(r, 1, 0, data, 3 * MIB);
	int commit = op_commit(r, 1, NULL);
	AUTO_FD int fd = open(rig_path(r, "small/f"), O_RDONLY);
	char got[64] = {0};
	ssize_t n = read(fd, got, sizeof(got) - 1);
	struct stat after = stat_of(r, "small/f");
	/* Make room: the stage is still there. */
	struct fileop_setattr s = {.valid = FILEOP_SET_SIZE, .size = MIB};
	int shrunk = op_setattr(r, 1, NULL, &s, NULL);
	int again = op_commit(r, 1, NULL);
	off_t size_then = stat_of(r, "small/f").st_size;
	close(steal_fd(&fd));
	op_close(r, 1);
	assert_int_equal(umount2(rig_path(r, "small"), MNT_DETACH), 0);
	assert_int_equal(opened, 2);
	assert_int_equal(wrote, 0);
	assert_int_equal(commit, -ENOSPC);
	assert_int_equal(n, 17);
	assert_string_equal(got, "precious old text");
	assert_int_equal(after.st_size, 17);
	assert_memory_equal(&after.st_mtim, &before.st_mtim, sizeof(struct timespec));
	assert_memory_equal(&after.st_ctim, &before.st_ctim, sizeof(struct timespec));
	assert_int_equal(shrunk, 0);
	assert_int_equal(again, 0);
	assert_int_equal(size_then, MIB);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_new_file_appears_whole),
		T(test_an_uncommitted_stage_leaves_nothing),
		T(test_an_existing_file_keeps_inode_links_mode_and_readers),
		T(test_a_name_taken_meanwhile_stays_what_it_is),
		T(test_a_file_written_by_another_hand_meanwhile_stays),
		T(test_a_renamed_directory_is_harmless),
		T(test_a_removed_directory_loses_no_bytes),
		T(test_an_existing_file_unlinked_meanwhile_does_not_come_back),
		T(test_attributes_go_to_what_it_becomes),
		T(test_fsync_and_link_commit),
		T(test_appends_stay_appends_after_commit),
		T(test_what_is_not_staged),
		T(test_holes_are_kept_and_old_bytes_do_not_shine_through),
		T(test_without_proc_a_temporary_name_does_it),
		T(test_where_no_stage_can_be_the_open_says_so),
		T(test_a_full_disk_leaves_the_old_file_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
