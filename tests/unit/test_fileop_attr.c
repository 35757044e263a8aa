/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/* What the file protocol tells and sets of a file without its bytes: attributes, extended ones, and those of its file system. */
#include "fileop_rig.h"

#include <sys/xattr.h>

static void test_attributes_are_those_of_the_file(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "hello");
	struct stat st = stat_of(r, "f");
	assert_int_equal(op_getattr(r, 0, "f", &a), 0);
	assert_int_equal(a.dev, st.st_dev);
	assert_int_equal(a.ino, st.st_ino);
	assert_int_equal(a.size, 5);
	assert_int_equal(a.mode, st.st_mode);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.uid, st.st_uid);
	assert_int_equal(a.gid, st.st_gid);
	assert_int_equal(a.mtime.tv_sec, st.st_mtim.tv_sec);
	assert_int_equal(a.mtime.tv_nsec, st.st_mtim.tv_nsec);
	assert_int_equal(a.flags, 0);
	assert_true(a.btime.tv_sec > 0);
	assert_int_equal(op_getattr(r, 0, "none", &a), -ENOENT);
	assert_int_equal(op_getattr(r, 0, "f/x", &a), -ENOTDIR);
	assert_int_equal(op_getattr(r, 99, NULL, &a), -EBADF);
	assert_int_equal(op_getattr(r, 0, "/", &a), 0);
	assert_int_equal(op_getattr(r, 0, "//tmp///", &a), 0);
}

static void test_setattr(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "0123456789");
	struct fileop_setattr s = {
		.valid = FILEOP_SET_SIZE | FILEOP_SET_MODE | FILEOP_SET_UID | FILEOP_SET_GID |
				 FILEOP_SET_ATIME | FILEOP_SET_MTIME,
		.mode = 0600,
		.uid = getuid(),
		.gid = getgid(),
		.size = 4,
		.atime = {1000, 1},
		.mtime = {2000, 999999999},
	};
	for (int by_handle = 0; by_handle < 2; by_handle++) {
		if (by_handle)
			assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
		s.size += 2;
		s.mode++;
		s.mtime.tv_sec--;
		assert_int_equal(op_setattr(r, (uint64_t)by_handle, "f", &s, &a), 0);
		struct stat st = stat_of(r, "f");
		assert_int_equal(st.st_size, s.size);
		assert_int_equal(st.st_mode, S_IFREG | s.mode);
		assert_int_equal(st.st_atim.tv_sec, 1000);
		assert_int_equal(st.st_mtim.tv_sec, s.mtime.tv_sec);
		assert_int_equal(st.st_mtim.tv_nsec, 999999999);
		assert_int_equal(a.mtime.tv_sec, s.mtime.tv_sec);
		assert_int_equal(a.size, s.size);
	}
	s = (struct fileop_setattr){.valid = FILEOP_SET_MTIME_NOW};
	assert_int_equal(op_setattr(r, 0, "f", &s, &a), 0);
	assert_true(a.mtime.tv_sec > 1000000);
	assert_int_equal(a.atime.tv_sec, 1000);
	s = (struct fileop_setattr){.valid = FILEOP_SET_SIZE, .size = 5};
	assert_int_equal(op_setattr(r, 0, "", &s, &a), -EISDIR);
	s.size = UINT64_MAX;
	assert_int_equal(op_setattr(r, 0, "f", &s, &a), -EINVAL);
	assert_int_equal(op_setattr(r, 0, "none", &s, &a), -ENOENT);
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	s = (struct fileop_setattr){.valid = FILEOP_SET_MODE | FILEOP_SET_MTIME, .mode = 01700};
	s.mtime.tv_sec = -5; /* before 1970 */
	assert_int_equal(op_setattr(r, 0, "d", &s, &a), 0);
	assert_int_equal(a.mode, S_IFDIR | 01700);
	assert_int_equal(a.mtime.tv_sec, -5);
	if (getuid() != 0) {
		s = (struct fileop_setattr){.valid = FILEOP_SET_UID, .uid = 0};
		assert_int_equal(op_setattr(r, 0, "f", &s, &a), -EPERM);
	}
}

static void test_setattr_without_proc(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	r->s->has_proc = false;
	put_file(r, "f", "0123456789");
	struct fileop_setattr s = {.valid = FILEOP_SET_SIZE | FILEOP_SET_MODE | FILEOP_SET_MTIME,
		.mode = 0600,
		.size = 4,
		.mtime = {2000, 3}};
	assert_int_equal(op_setattr(r, 0, "f", &s, &a), 0);
	assert_int_equal(a.size, 4);
	assert_int_equal(a.mode, S_IFREG | 0600);
	assert_int_equal(a.mtime.tv_sec, 2000);
	assert_int_equal(op_link(r, 0, "f", "g"), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "user.x", NULL), -EOPNOTSUPP);
}

static void test_xattrs(void **state)
{
	struct rig *r = *state;
	size_t n;
	put_file(r, "f", "x");
	if (setxattr(rig_path(r, "f"), "user.probe", "", 0, 0) < 0)
		skip(); /* the file system of /tmp has none */
	assert_int_equal(removexattr(rig_path(r, "f"), "user.probe"), 0);
	assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
	assert_int_equal(op_xattr(r, FILEOP_SETXATTR, 0, "f", "user.a", "one"), 0);
	assert_int_equal(op_xattr(r, FILEOP_SETXATTR, 1, NULL, "user.b", ""), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 1, NULL, "user.a", NULL), 0);
	assert_memory_equal(reader_bytes(&r->body, &n), "one", 3);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "user.b", NULL), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "user.c", NULL), -ENODATA);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "security.capability", NULL), -ENODATA);
	assert_int_equal(op_xattr(r, FILEOP_SETXATTR, 0, "f", "trusted.x", "1"), -EOPNOTSUPP);
	assert_int_equal(op_xattr(r, FILEOP_REMOVEXATTR, 0, "f", "trusted.x", NULL), -EOPNOTSUPP);
	assert_int_equal(op_xattr(r, FILEOP_LISTXATTR, 0, "f", NULL, NULL), 0);
	reader_bytes(&r->body, &n);
	assert_int_equal(n, 14);
	assert_int_equal(op_xattr(r, FILEOP_REMOVEXATTR, 1, NULL, "user.a", NULL), 0);
	assert_int_equal(op_xattr(r, FILEOP_REMOVEXATTR, 1, NULL, "user.a", NULL), -ENODATA);
	assert_int_equal(op_symlink(r, "l", "f"), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "l", "user.b", NULL), -ENODATA);
	assert_int_equal(op_xattr(r, FILEOP_LISTXATTR, 9, NULL, NULL, NULL), -EBADF);
}

static void test_statfs(void **state)
{
	struct rig *r = *state;
	assert_int_equal(op_path(r, FILEOP_STATFS, ""), 0);
	assert_true(reader_u64(&r->body) >= 512);
	assert_true(reader_u64(&r->body) >= 512);
	assert_true(reader_u64(&r->body) > 0);
	for (int i = 0; i < 4; i++)
		reader_u64(&r->body);
	assert_int_equal(reader_u64(&r->body), 255);
	assert_int_equal(r->body.left, 0);
	assert_int_equal(op_path(r, FILEOP_STATFS, "none"), -ENOENT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_attributes_are_those_of_the_file),
		T(test_setattr),
		T(test_setattr_without_proc),
		T(test_xattrs),
		T(test_statfs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
