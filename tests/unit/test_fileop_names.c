/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/* Names in the file protocol: what is a path, how names are made, moved and removed, how directories are listed. */
#include "fileop_rig.h"

static void test_a_symlink_is_shown_and_never_followed(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	size_t n;
	put_file(r, "f", "hello");
	assert_int_equal(op_symlink(r, "l", "/etc/../x y\xff"), 0);
	rig_attr(r, &a);
	assert_true(S_ISLNK(a.mode));
	assert_int_equal(op_getattr(r, 0, "l", &a), 0);
	const char *p = reader_bytes(&r->body, &n);
	assert_int_equal(n, 12);
	assert_memory_equal(p, "/etc/../x y\xff", 12);
	assert_int_equal(unlink(rig_path(r, "l")), 0);
	assert_int_equal(op_symlink(r, "l", "f"), 0);
	assert_int_equal(op_symlink(r, "l", "f"), -EEXIST);
	assert_int_equal(op_symlink(r, "m", ""), -ENOENT);
	assert_int_equal(op_open(r, 1, "l", FILEOP_O_READ, 0, &a), -ELOOP);
	assert_int_equal(op_open(r, 1, "l", NEW | FILEOP_O_TRUNC, 0644, &a), -ELOOP);
	assert_int_equal(op_open(r, 1, "l", STAGE_OVER, 0644, &a), -ELOOP);
	assert_int_equal(op_read(r, 0, "l", 0, 10, NULL), -ELOOP);
	struct fileop_setattr s = {.valid = FILEOP_SET_MODE, .mode = 0777};
	assert_int_equal(op_setattr(r, 0, "l", &s, &a), -EOPNOTSUPP);
	s = (struct fileop_setattr){.valid = FILEOP_SET_SIZE};
	assert_int_equal(op_setattr(r, 0, "l", &s, &a), -EINVAL);
	s = (struct fileop_setattr){.valid = FILEOP_SET_MTIME, .mtime = {100, 5}};
	assert_int_equal(op_setattr(r, 0, "l", &s, &a), 0);
	assert_int_equal(a.mtime.tv_sec, 100);
	assert_int_equal(a.mtime.tv_nsec, 5);
	assert_int_equal(stat_of(r, "f").st_size, 5);
	assert_true(stat_of(r, "f").st_mtim.tv_sec > 100);
}

static void test_paths_that_are_none(void **state)
{
	struct rig *r = *state;
	static const char nul[] = "/tmp/a\0b";
	static const struct {
		const char *p;
		size_t n;
	} bad[] = {{"", 0}, {"relative", 8}, {nul, sizeof(nul) - 1}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rig_begin(r);
		size_t at = rig_call(r, FILEOP_UNLINK);
		buf_bytes(&r->request, bad[i].p, bad[i].n);
		assert_int_equal(rig_one(r, at), -EINVAL);
		rig_begin(r);
		at = rig_call(r, FILEOP_GETATTR);
		buf_u64(&r->request, 0);
		buf_bytes(&r->request, bad[i].p, bad[i].n);
		buf_u64(&r->request, 0);
		buf_u64(&r->request, 0);
		assert_int_equal(rig_one(r, at), -EINVAL);
	}
	char name[300];
	memset(name, 'n', 256);
	name[256] = 0;
	assert_int_equal(op_make(r, FILEOP_MKDIR, name, 0755), -ENAMETOOLONG);
	assert_int_equal(op_open(r, 1, name, STAGE_NEW, 0644, NULL), -ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(op_make(r, FILEOP_MKDIR, name, 0755), 0);
}

static void test_paths_of_any_length(void **state)
{
	struct rig *r = *state;
	enum { DEPTH = 60, NAME = 200 };
	AUTO_FREE char *path = calloc(1, DEPTH * (NAME + 1) + 64);
	struct fileop_attr a;
	size_t n = (size_t)sprintf(path, "%s", r->dir);
	for (int i = 0; i < DEPTH; i++) {
		path[n++] = '/';
		memset(path + n, 'a' + i % 26, NAME);
		n += NAME;
		assert_int_equal(op_make(r, FILEOP_MKDIR, path, 0755), 0);
	}
	size_t deep = n;
	strcpy(path + n, "/file");
	assert_int_equal(op_open(r, 1, path, STAGE_NEW, 0644, &a), 3);
	assert_int_equal(op_write(r, 1, 0, "deep", 4), 0);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(op_close(r, 1), 0);
	assert_int_equal(op_open(r, 1, path, STAGE_OVER, 0644, &a), 2);
	assert_int_equal(op_write(r, 1, 0, "over", 4), 0);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(op_close(r, 1), 0);
	const char *p;
	assert_int_equal(op_read(r, 0, path, 0, 10, &p), 4);
	assert_memory_equal(p, "over", 4);
	assert_int_equal(op_getattr(r, 0, path, &a), 0);
	assert_int_equal(a.size, 4);
	assert_int_equal(op_rename(r, path, "up", 0), 0);
	assert_int_equal(op_link(r, 0, "up", path), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, path), 0);
	path[deep] = 0;
	for (int i = 0; i < DEPTH; i++) {
		assert_int_equal(op_path(r, FILEOP_RMDIR, path), 0);
		*strrchr(path, '/') = 0;
	}
	/* A component beyond all limits in a path beyond PATH_MAX. */
	memset(path, 'x', 6000);
	path[0] = '/';
	path[6000] = 0;
	assert_int_equal(op_path(r, FILEOP_UNLINK, path), -ENAMETOOLONG);
}

static void test_names_of_any_bytes(void **state)
{
	struct rig *r = *state;
	static const char *const names[] = {
		"\xff\xfe", "new\nline", "'q\"", "-rf", " ", "\x01", "*", "a\\b"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(op_open(r, i + 1, names[i], STAGE_NEW, 0600, NULL), 3);
		assert_int_equal(op_write(r, i + 1, 0, names[i], strlen(names[i])), 0);
		assert_int_equal(op_commit(r, i + 1, NULL), 0);
		assert_file(r, names[i], names[i]);
	}
	assert_int_equal(op_open(r, 100, "", FILEOP_O_DIRECTORY, 0, NULL), 0);
	assert_int_equal(op_readdir(r, 100, 1 << 20), 0);
	assert_int_equal(reader_u8(&r->body), 1);
	assert_int_equal(reader_u32(&r->body), sizeof(names) / sizeof(names[0]));
}

static void test_making_and_removing_names(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 01777), 0);
	rig_attr(r, &a);
	assert_int_equal(a.mode, S_IFDIR | 01777);
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d/", 0755), -EEXIST);
	assert_int_equal(op_make(r, FILEOP_MKDIR, "x/y", 0755), -ENOENT);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "d/p", S_IFIFO | 0640), 0);
	rig_attr(r, &a);
	assert_int_equal(a.mode, S_IFIFO | 0640);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "s", S_IFSOCK | 0600), 0);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "r", S_IFREG | 0600), 0);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "c", S_IFCHR | 0600), -EPERM);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "b", S_IFBLK | 0600), -EPERM);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "r", S_IFREG | 0600), -EEXIST);
	assert_int_equal(op_path(r, FILEOP_RMDIR, "d"), -ENOTEMPTY);
	assert_int_equal(op_path(r, FILEOP_RMDIR, "r"), -ENOTDIR);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "d"), -EISDIR);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "d/p"), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "d/p"), -ENOENT);
	assert_int_equal(op_path(r, FILEOP_RMDIR, "d"), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "s"), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "r"), 0);
	assert_int_equal(count_names(r), 0);
}

static void test_renames_and_links(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "a", "A");
	put_file(r, "b", "B");
	assert_int_equal(op_rename(r, "a", "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(op_rename(r, "a", "b", RENAME_EXCHANGE), 0);
	assert_file(r, "a", "B");
	assert_int_equal(op_rename(r, "a", "b", RENAME_WHITEOUT), -EINVAL);
	assert_int_equal(op_rename(r, "a", "b", 0), 0);
	assert_file(r, "b", "B");
	assert_int_equal(op_rename(r, "a", "b", 0), -ENOENT);
	assert_int_equal(op_link(r, 0, "b", "c"), 0);
	rig_attr(r, &a);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(op_link(r, 0, "b", "c"), -EEXIST);
	assert_int_equal(op_open(r, 1, "b", RW, 0, NULL), 0);
	assert_int_equal(op_link(r, 1, NULL, "e"), 0);
	assert_int_equal(stat_of(r, "e").st_nlink, 3);
	assert_int_equal(op_symlink(r, "l", "nowhere"), 0);
	assert_int_equal(op_link(r, 0, "l", "l2"), 0);
	assert_true(S_ISLNK(stat_of(r, "l2").st_mode));
	/* With the file asked for by number, the symlink itself is linked too. */
	struct stat st = stat_of(r, "l");
	struct fileop_target t = {0, rig_path(r, "l"), st.st_dev, st.st_ino};
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_LINK);
	fileop_put_target(&r->request, &t);
	rig_str(r, rig_path(r, "l3"));
	assert_int_equal(rig_one(r, at), 0);
	assert_int_equal(stat_of(r, "l3").st_ino, st.st_ino);
}

/* Reads the listing of handle h to its end, max bytes at a time; how many names; *calls is how many calls. */
static size_t list_all(struct rig *r, uint64_t h, uint32_t max, size_t *calls)
{
	size_t total = 0;
	for (*calls = 0;; (*calls)++) {
		assert_int_equal(op_readdir(r, h, max), 0);
		bool eof = reader_u8(&r->body);
		uint32_t count = reader_u32(&r->body);
		for (uint32_t i = 0; i < count; i++) {
			size_t n;
			assert_non_null(reader_bytes(&r->body, &n));
			rig_attr(r, NULL);
			assert_non_null(reader_bytes(&r->body, &n));
		}
		assert_int_equal(r->body.left, 0);
		total += count;
		if (eof)
			return total;
		assert_true(count > 0);
	}
}

static void test_listings(void **state)
{
	struct rig *r = *state;
	enum { FILES = 3000 };
	size_t calls;
	for (int i = 0; i < FILES; i++) {
		char name[40];
		snprintf(name, sizeof(name), "file-number-%d", i);
		put_file(r, name, "");
	}
	assert_int_equal(op_open(r, 1, "", FILEOP_O_DIRECTORY, 0, NULL), 0);
	assert_int_equal(list_all(r, 1, FILEOP_MAX_READ, &calls), FILES);
	assert_int_equal(calls, 0);
	assert_int_equal(list_all(r, 1, 1000, &calls), 0);
	assert_int_equal(op_handle(r, FILEOP_REWINDDIR, 1), 0);
	assert_int_equal(list_all(r, 1, 1000, &calls), FILES);
	assert_true(calls > 300);
	assert_int_equal(op_handle(r, FILEOP_REWINDDIR, 1), 0);
	assert_int_equal(list_all(r, 1, 0, &calls), FILES);
	put_file(r, "f", "");
	assert_int_equal(op_open(r, 2, "f", RW, 0, NULL), 0);
	assert_int_equal(op_readdir(r, 2, 1000), -ENOTDIR);
	assert_int_equal(op_handle(r, FILEOP_REWINDDIR, 2), -ENOTDIR);
	assert_int_equal(op_readdir(r, 1, FILEOP_MAX_READ + 1), -EINVAL);
	assert_int_equal(op_readdir(r, 3, 1000), -EBADF);
}

static void test_a_listing_has_links_and_attributes(void **state)
{
	struct rig *r = *state;
	size_t n;
	struct fileop_attr a;
	assert_int_equal(symlink("../else where", rig_path(r, "l")), 0);
	assert_int_equal(op_open(r, 1, "", FILEOP_O_DIRECTORY, 0, NULL), 0);
	assert_int_equal(op_readdir(r, 1, 10000), 0);
	assert_int_equal(reader_u8(&r->body), 1);
	assert_int_equal(reader_u32(&r->body), 1);
	assert_memory_equal(reader_bytes(&r->body, &n), "l", 1);
	rig_attr(r, &a);
	assert_int_equal(a.ino, stat_of(r, "l").st_ino);
	const char *p = reader_bytes(&r->body, &n);
	assert_int_equal(n, 13);
	assert_memory_equal(p, "../else where", 13);
}

static void test_procfs_is_special(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	const char *p;
	assert_int_equal(op_getattr(r, 0, "/proc/uptime", &a), 0);
	assert_int_equal(a.flags, FILEOP_ATTR_SPECIAL);
	assert_int_equal(a.size, 0);
	assert_true(op_read(r, 0, "/proc/uptime", 0, 4096, &p) > 4);
	assert_true(op_read(r, 0, "/proc/uptime", 2, 1, &p) == 1);
	assert_int_equal(op_open(r, 1, "/proc", FILEOP_O_DIRECTORY, 0, &a), 0);
	assert_int_equal(op_readdir(r, 1, 10000), 0);
	assert_int_equal(reader_u8(&r->body), 1);
	assert_int_equal(reader_u32(&r->body), 0);
	assert_int_equal(op_open(r, 2, "/proc/self/stat", FILEOP_O_READ, 0, &a), 0);
	assert_true(op_read(r, 2, NULL, 0, FILEOP_MAX_READ, &p) > 10);
	/* Copied as it reads, not as its size says. */
	assert_int_equal(op_open(r, 3, "copy", NEW, 0600, &a), 1);
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_COPY_RANGE);
	buf_u64(&r->request, 2);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 3);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 1 << 20);
	assert_int_equal(rig_one(r, at), 0);
	assert_true(reader_u64(&r->body) > 10);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_symlink_is_shown_and_never_followed),
		T(test_paths_that_are_none),
		T(test_paths_of_any_length),
		T(test_names_of_any_bytes),
		T(test_making_and_removing_names),
		T(test_renames_and_links),
		T(test_listings),
		T(test_a_listing_has_links_and_attributes),
		T(test_procfs_is_special),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
