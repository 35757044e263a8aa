/*
 * The table of calls, and those that work on names and attributes. Each reads all of its arguments before it does
 * anything, so that a malformed call has no effect. What was checked is what is changed: a target is held by a
 * descriptor from the look to the act, and where /proc is there the act goes through that descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "cleanup.h"
#include "fileop_internal.h"

static int call_ping(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)b;   /* there is nothing to do, */
	(void)out; /* nor to say */
	struct fileop_args a = {in, 0};
	return fileop_args_end(&a);
}

/* --- attributes --- */

static int put_file_attr(struct fileop_batch *b, struct fileop_file *f, struct buf *out)
{
	if (f->use.h)
		return fileop_put_handle_attr(b->server, out, f->use.h);
	struct statx st;
	int err = fileop_statx(f->fd, "", &st);
	if (!err)
		fileop_put_statx(b->server, out, &st, f->fd, "");
	return err;
}

static int put_attr_and_link(struct fileop_batch *b, struct fileop_asked *t, struct buf *out)
{
	AUTO_FILE f = FILEOP_NO_FILE;
	int err = fileop_file_open(b, t, &f);
	if (err)
		return err;
	fileop_put_statx(b->server, out, &f.st, f.fd, "");
	if (S_ISLNK(f.st.stx_mode))
		return fileop_put_link(out, f.fd, "");
	buf_u32(out, 0);
	return 0;
}

static int call_getattr(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_ASKED t = {0};
	fileop_args_target(&a, &t);
	int err = fileop_args_end(&a);
	if (err)
		return err;
	if (t.handle)
		return put_attr_and_link(b, &t, out);
	/* The usual case in one system call; a symlink is held, lest text and attributes be of two. */
	AUTO_PLACE at = FILEOP_NO_PLACE;
	struct statx st;
	err = fileop_place_open(t.path, &at);
	if (!err)
		err = fileop_statx(at.dir, at.name, &st);
	if (!err && S_ISLNK(st.stx_mode))
		return put_attr_and_link(b, &t, out);
	if (!err)
		err = fileop_same(&st, t.dev, t.ino);
	if (err)
		return err;
	fileop_put_statx(b->server, out, &st, at.dir, at.name);
	buf_u32(out, 0);
	return 0;
}

static int set_size(struct fileop_batch *b, struct fileop_file *f, uint64_t size)
{
	if (S_ISDIR(f->st.stx_mode))
		return -EISDIR;
	if (!S_ISREG(f->st.stx_mode) || size > INT64_MAX)
		return -EINVAL;
	if (size > f->st.stx_size) {
		/* Growth takes no blocks yet; a disk that is full already takes none of it. */
		int err = fileop_check_space(b, fileop_statx_dev(&f->st), 0);
		if (err)
			return err;
	}
	if (!f->by_path)
		return ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
	if (b->server->has_proc)
		return truncate(fileop_proc_name(f->fd).text, (off_t)size) < 0 ? -errno : 0;
	AUTO_FD int fd =
		openat(f->place.dir, f->place.name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct statx st;
	if (fd < 0)
		return -errno;
	int err = fileop_statx(fd, "", &st);
	if (!err)
		err = fileop_same(&st, fileop_statx_dev(&f->st), f->st.stx_ino);
	if (err)
		return err;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

/* The descriptor that mode and owner go to: a stage is nothing to the file it will be copied into. */
static int owner_fd(const struct fileop_file *f)
{
	return f->use.h && f->use.h->target >= 0 ? f->use.h->target : f->fd;
}

static int set_mode(struct fileop_batch *b, struct fileop_file *f, mode_t mode)
{
	int done;
	if (S_ISLNK(f->st.stx_mode))
		return -EOPNOTSUPP;
	if (!f->by_path)
		done = fchmod(owner_fd(f), mode);
	else if (b->server->has_proc)
		done = chmod(fileop_proc_name(f->fd).text, mode);
	else
		done = fchmodat(f->place.dir, f->place.name, mode, 0);
	return done < 0 ? -errno : 0;
}

static int set_owner(struct fileop_file *f, const struct fileop_setattr *s)
{
	uid_t uid = s->valid & FILEOP_SET_UID ? s->uid : (uid_t)-1;
	gid_t gid = s->valid & FILEOP_SET_GID ? s->gid : (gid_t)-1;
	if (fchownat(owner_fd(f), "", uid, gid, AT_EMPTY_PATH) == 0)
		return 0;
	/* An id that the user namespace does not map is no wrong argument: it is one we may not give. */
	return errno == EINVAL ? -EPERM : -errno;
}

static struct timespec time_to_set(
	const struct fileop_setattr *s, uint32_t now, uint32_t given, const struct timespec *t)
{
	if (s->valid & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return s->valid & given ? *t : (struct timespec){.tv_nsec = UTIME_OMIT};
}

static int set_times(struct fileop_batch *b, struct fileop_file *f, const struct fileop_setattr *s)
{
	struct timespec t[2] = {time_to_set(s, FILEOP_SET_ATIME_NOW, FILEOP_SET_ATIME, &s->atime),
		time_to_set(s, FILEOP_SET_MTIME_NOW, FILEOP_SET_MTIME, &s->mtime)};
	if (!f->by_path) {
		/* COMMIT carries the stage's mtime over, nothing else. */
		struct timespec only_atime[2] = {t[0], {.tv_nsec = UTIME_OMIT}};
		int target = owner_fd(f);
		if (target != f->fd && futimens(target, only_atime) < 0)
			return -errno;
		return futimens(f->fd, t) < 0 ? -errno : 0;
	}
	/* By an O_PATH descriptor since Linux 5.8. */
	if (utimensat(f->fd, "", t, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOENT && errno != EBADF)
		return -errno;
	if (b->server->has_proc && !S_ISLNK(f->st.stx_mode))
		return utimensat(AT_FDCWD, fileop_proc_name(f->fd).text, t, 0) < 0 ? -errno : 0;
	return utimensat(f->place.dir, f->place.name, t, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int call_setattr(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	enum {
		OWNER = FILEOP_SET_UID | FILEOP_SET_GID,
		TIMES = FILEOP_SET_ATIME | FILEOP_SET_MTIME | FILEOP_SET_ATIME_NOW | FILEOP_SET_MTIME_NOW
	};
	struct fileop_args a = {in, 0};
	AUTO_ASKED t = {0};
	struct fileop_setattr s;
	fileop_args_target(&a, &t);
	if (fileop_get_setattr(in, &s))
		return -EBADMSG;
	int err = fileop_args_end(&a);
	if (err)
		return err;
	AUTO_FILE f = FILEOP_NO_FILE;
	err = fileop_file_open(b, &t, &f);
	/* Times last: the others move them. */
	if (!err && s.valid & FILEOP_SET_SIZE)
		err = set_size(b, &f, s.size);
	if (!err && s.valid & FILEOP_SET_MODE)
		err = set_mode(b, &f, s.mode & 07777);
	if (!err && s.valid & OWNER)
		err = set_owner(&f, &s);
	if (!err && s.valid & TIMES)
		err = set_times(b, &f, &s);
	return err ? err : put_file_attr(b, &f, out);
}

/* --- names --- */

/* A path to be made, with its place; the mode of those that have one. */
struct making {
	struct fileop_place at;
	char *path;
};

static void making_end(struct making *m)
{
	fileop_place_end(&m->at);
	cleanup_free(&m->path);
}
#define AUTO_MAKING __attribute__((cleanup(making_end))) struct making

static int making_begin(struct fileop_batch *b, const struct fileop_args *a, struct making *m)
{
	int err = fileop_args_end(a);
	if (!err)
		err = fileop_check_creation(b, m->path);
	return err ? err : fileop_place_open(m->path, &m->at);
}

static int call_mkdir(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_MAKING m = {.at = FILEOP_NO_PLACE, .path = fileop_args_path(&a)};
	mode_t mode = reader_u32(in) & 07777;
	int err = making_begin(b, &a, &m);
	if (err)
		return err;
	if (mkdirat(m.at.dir, m.at.name, mode) < 0)
		return -errno;
	return fileop_put_place_attr(b->server, out, &m.at);
}

static int call_mknod(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_MAKING m = {.at = FILEOP_NO_PLACE, .path = fileop_args_path(&a)};
	mode_t mode = reader_u32(in);
	int err = making_begin(b, &a, &m);
	if (err)
		return err;
	if (!S_ISFIFO(mode) && !S_ISSOCK(mode) && !S_ISREG(mode))
		return -EPERM;
	if (mknodat(m.at.dir, m.at.name, mode & (S_IFMT | 07777), 0) < 0)
		return -errno;
	return fileop_put_place_attr(b->server, out, &m.at);
}

static int call_symlink(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_MAKING m = {.at = FILEOP_NO_PLACE, .path = fileop_args_path(&a)};
	AUTO_FREE char *text = fileop_args_text(&a);
	int err = making_begin(b, &a, &m);
	if (err)
		return err;
	if (symlinkat(text, m.at.dir, m.at.name) < 0)
		return -errno;
	return fileop_put_place_attr(b->server, out, &m.at);
}

/* A handle that is still nameless gets its own name first: a second one alone would be lost at COMMIT. */
static int commit_first(struct fileop_batch *b, uint64_t number)
{
	AUTO_USE u = {0};
	int err = fileop_use_alone(b, number, &u);
	return err ? err : fileop_stage_commit(b, u.h);
}

static int call_link(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_ASKED t = {0};
	fileop_args_target(&a, &t);
	AUTO_FREE char *path = fileop_args_path(&a);
	int err = fileop_args_end(&a);
	if (!err && t.handle)
		err = commit_first(b, t.handle);
	AUTO_FILE f = FILEOP_NO_FILE;
	AUTO_PLACE to = FILEOP_NO_PLACE;
	if (!err)
		err = fileop_file_open(b, &t, &f);
	if (!err)
		err = fileop_place_open(path, &to);
	if (err)
		return err;
	/* By name where nothing depends on which file it is: linking through /proc is refused for more reasons. */
	bool by_name = f.by_path && (!t.ino || !b->server->has_proc);
	int done =
		by_name ? linkat(f.place.dir, f.place.name, to.dir, to.name, 0)
				: linkat(AT_FDCWD, fileop_proc_name(f.fd).text, to.dir, to.name, AT_SYMLINK_FOLLOW);
	return done < 0 ? -errno : fileop_put_place_attr(b->server, out, &to);
}

static int remove_name(struct reader *in, int flags)
{
	struct fileop_args a = {in, 0};
	AUTO_FREE char *path = fileop_args_path(&a);
	AUTO_PLACE at = FILEOP_NO_PLACE;
	int err = fileop_args_end(&a);
	if (!err)
		err = fileop_place_open(path, &at);
	if (err)
		return err;
	return unlinkat(at.dir, at.name, flags) < 0 ? -errno : 0;
}

static int call_unlink(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)b;
	(void)out; /* nothing to say but the errno */
	return remove_name(in, 0);
}

static int call_rmdir(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)b;
	(void)out; /* as above */
	return remove_name(in, AT_REMOVEDIR);
}

static int call_rename(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	(void)b;
	(void)out; /* as above */
	struct fileop_args a = {in, 0};
	AUTO_FREE char *from = fileop_args_path(&a);
	AUTO_FREE char *to = fileop_args_path(&a);
	uint32_t flags = reader_u32(in);
	AUTO_PLACE old = FILEOP_NO_PLACE;
	AUTO_PLACE new = FILEOP_NO_PLACE;
	int err = fileop_args_end(&a);
	if (!err && flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		err = -EINVAL;
	if (!err)
		err = fileop_place_open(from, &old);
	if (!err)
		err = fileop_place_open(to, &new);
	if (err)
		return err;
	if (renameat2(old.dir, old.name, new.dir, new.name, flags) == 0)
		return 0;
	if (errno != ENOSYS)
		return -errno;
	/* A kernel or a filter without renameat2. */
	if (flags)
		return -EINVAL;
	return renameat(old.dir, old.name, new.dir, new.name) < 0 ? -errno : 0;
}

/* --- file systems --- */

static uint64_t less(uint64_t blocks, uint64_t by)
{
	return blocks > by ? blocks - by : 0;
}

static int call_statfs(struct fileop_batch *b, struct reader *in, struct buf *out)
{
	struct fileop_args a = {in, 0};
	AUTO_ASKED t = {.path = fileop_args_path(&a)};
	int err = fileop_args_end(&a);
	AUTO_FILE f = FILEOP_NO_FILE;
	struct statfs fs;
	if (!err)
		err = fileop_file_open(b, &t, &f);
	if (err)
		return err;
	if (fstatfs(f.fd, &fs) < 0)
		return -errno;
	uint64_t bsize = fs.f_bsize > 0 ? (uint64_t)fs.f_bsize : 4096;
	uint64_t frsize = fs.f_frsize > 0 ? (uint64_t)fs.f_frsize : bsize;
	uint64_t kept = fileop_statx_dev(&f.st) == b->workspace_dev
						? (b->server->min_free + frsize - 1) / frsize
						: 0;
	buf_u64(out, bsize);
	buf_u64(out, frsize);
	buf_u64(out, fs.f_blocks);
	buf_u64(out, less(fs.f_bfree, kept));
	buf_u64(out, less(fs.f_bavail, kept));
	buf_u64(out, fs.f_files);
	buf_u64(out, fs.f_ffree);
	buf_u64(out, (uint64_t)fs.f_namelen);
	return 0;
}

/* --- the table --- */

fileop_call_fn *fileop_find_call(unsigned code)
{
	static fileop_call_fn *const table[FILEOP_CODE_COUNT] = {
		[FILEOP_PING] = call_ping,
		[FILEOP_GETATTR] = call_getattr,
		[FILEOP_SETATTR] = call_setattr,
		[FILEOP_OPEN] = fileop_call_open,
		[FILEOP_CLOSE] = fileop_call_close,
		[FILEOP_READ] = fileop_call_read,
		[FILEOP_WRITE] = fileop_call_write,
		[FILEOP_COMMIT] = fileop_call_commit,
		[FILEOP_FSYNC] = fileop_call_fsync,
		[FILEOP_READDIR] = fileop_call_readdir,
		[FILEOP_REWINDDIR] = fileop_call_rewinddir,
		[FILEOP_MKDIR] = call_mkdir,
		[FILEOP_MKNOD] = call_mknod,
		[FILEOP_SYMLINK] = call_symlink,
		[FILEOP_LINK] = call_link,
		[FILEOP_UNLINK] = call_unlink,
		[FILEOP_RMDIR] = call_rmdir,
		[FILEOP_RENAME] = call_rename,
		[FILEOP_STATFS] = call_statfs,
		[FILEOP_FALLOCATE] = fileop_call_fallocate,
		[FILEOP_SEEK] = fileop_call_seek,
		[FILEOP_COPY_RANGE] = fileop_call_copy_range,
		[FILEOP_GETXATTR] = fileop_call_getxattr,
		[FILEOP_SETXATTR] = fileop_call_setxattr,
		[FILEOP_LISTXATTR] = fileop_call_listxattr,
		[FILEOP_REMOVEXATTR] = fileop_call_removexattr,
		[FILEOP_SALVAGE] = fileop_call_salvage,
		[FILEOP_ABANDON] = fileop_call_abandon,
	};
	return code < FILEOP_CODE_COUNT ? table[code] : NULL;
}
