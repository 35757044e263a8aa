/*
 * The file protocol: batches of POSIX calls on the files of a sandbox.
 *
 * This header is the format, shared by both ends. The client (sandboxfs)
 * encodes with fileop_put_* and decodes with fileop_get_*; the server side
 * (fileop_server.h) is a library that sandboxd serves as a route and that a
 * static helper can carry through a plain exec. Neither side trusts the other's
 * lengths: everything is read through struct reader.
 *
 * All integers are little-endian. A string is u32 length + bytes, without NUL.
 * Paths are absolute paths of the sandbox.
 *
 * Request:  u32 magic, u16 version, u16 0, u8[16] client, u64 seq, u64 acked, u32 count,
 *           then count times: u32 length (of what follows), u16 opcode, u16 opflags, body
 * Reply:    u32 magic, u16 version, u16 0, u8[16] boot, u64 workspace_ino, u64 avail, u32 count,
 *           then count times: u32 length (of what follows), i32 error (0 or a positive errno), body
 *
 * seq numbers the batches of one client that change something (0: the batch
 * changes nothing and is not remembered). The server keeps the reply of each such batch until
 * a later batch says acked >= seq (and of the newest 256 at the least), and answers a
 * repetition from there: a batch whose answer was lost may be sent again. The error values
 * are Linux's numbers. boot is drawn anew at each start of the server: open
 * handles, locks and remembered replies live as long as it does not change.
 *
 * Handles: the client chooses the number (never 0), so that one batch can open, read and close.
 * Handles belong to (client, number); a client unheard of for FILEOP_LEASE_SECONDS loses them.
 * A server that has lost a handle answers EBADF.
 *
 * Staging: OPEN with FILEOP_O_STAGE writes to a nameless file beside the
 * target. For a name that did not exist, COMMIT gives it its name, whole
 * (if another file has taken the name meanwhile, the content is copied into that one);
 * for an existing file (FILEOP_O_TRUNC), COMMIT copies the content over the old in
 * place, so that inode, links, mode and open readers stay and a cut link never tears it.
 * After COMMIT the handle is an ordinary one. CLOSE of an uncommitted handle drops what was staged.
 * Where the file system has no nameless files, a temporary name in /tmp-like
 * space of the same file system outside /workspace is used, else none: the open is then unstaged
 * (the reply says which it was). With FILEOP_O_EXCL a name is made at once and never staged: it is asked for to exclude others.
 */
#ifndef SBX_FILEOP_H
#define SBX_FILEOP_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "buf.h"

enum {
	FILEOP_MAGIC = 0x46584253, /* "SBXF" */
	FILEOP_VERSION = 1,
	FILEOP_ID_SIZE = 16,
	FILEOP_LEASE_SECONDS = 600,
	FILEOP_MAX_BATCH = 16 << 20, /* bytes of a request or of a reply */
	FILEOP_MAX_COUNT = 4096,     /* calls in a batch */
	FILEOP_MAX_READ = 4 << 20    /* bytes of one READ, WRITE or READDIR */
};

/* opflags */
enum {
	/* if this call fails, the rest of the batch is not done: their error is ECANCELED */
	FILEOP_MUST = 1
};

/*
 * Opcodes. "target" is u64 handle, string path, u64 dev, u64 ino: the handle if not 0; else the path, never
 * following a symlink in its last component, and where ino is not 0 the call fails with ESTALE if
 * the file there is another. "attr" is struct fileop_attr as fileop_put_attr writes it.
 */
enum fileop_code {
	FILEOP_PING = 1, /* -> */
	FILEOP_GETATTR,  /* target -> attr, string link (text of a symlink, else empty) */
	FILEOP_SETATTR,  /* target, struct fileop_setattr -> attr */
	FILEOP_OPEN, /* u64 handle, string path, u64 dev, u64 ino, u32 FILEOP_O_*, u32 mode -> attr, u8 created, u8 staged */
	FILEOP_CLOSE, /* u64 handle -> */
	FILEOP_READ, /* target, u64 offset, u32 length -> string data (short only at the end of the file) */
	FILEOP_WRITE, /* u64 handle, u64 offset, string data -> (all of it or an error); with FILEOP_O_APPEND the offset is ignored */
	FILEOP_COMMIT,  /* u64 handle -> attr */
	FILEOP_FSYNC,   /* u64 handle, u8 datasync -> */
	FILEOP_READDIR, /* u64 handle, u32 max -> u8 eof, u32 count, count times: string name, attr, string link. Goes on where the last one stopped; . and .. are left out. Ino 0: attributes cannot be had (no x on the directory), mode has the type alone */
	FILEOP_REWINDDIR, /* u64 handle -> */
	FILEOP_MKDIR,     /* string path, u32 mode -> attr */
	FILEOP_MKNOD, /* string path, u32 mode (with type: FIFO, socket, regular; else EPERM) -> attr */
	FILEOP_SYMLINK, /* string path, string text -> attr */
	FILEOP_LINK,    /* target, string newpath -> attr */
	FILEOP_UNLINK,  /* string path -> */
	FILEOP_RMDIR,   /* string path -> */
	FILEOP_RENAME,  /* string old, string new, u32 flags (RENAME_*) -> */
	FILEOP_STATFS, /* string path -> u64 bsize, frsize, blocks, bfree, bavail, files, ffree, namelen */
	FILEOP_FALLOCATE,  /* u64 handle, u32 mode, u64 offset, u64 length -> */
	FILEOP_SEEK,       /* u64 handle, u64 offset, u32 whence (SEEK_DATA, SEEK_HOLE) -> u64 offset */
	FILEOP_COPY_RANGE, /* u64 in, u64 inoff, u64 out, u64 outoff, u64 length -> u64 copied */
	FILEOP_GETXATTR,   /* target, string name -> string value */
	FILEOP_SETXATTR,   /* target, string name, string value, u32 flags (XATTR_*) -> */
	FILEOP_LISTXATTR,  /* target -> string names (each followed by NUL) */
	FILEOP_REMOVEXATTR, /* target, string name -> */
	FILEOP_SALVAGE, /* u64 handle, string path -> attr: a new file at path with the handle's content and mode (O_EXCL) */
	/*
	 * u64 seq -> : the batch of that number will not be sent again, and nobody waits for its answer. If it comes yet (a link may hold it
	 * up), it is refused; if it runs, its end is waited for, 1 s at most.
	 */
	FILEOP_ABANDON,
	FILEOP_CODE_COUNT
};

/* OPEN flags. Always O_NOFOLLOW, O_CLOEXEC, O_NONBLOCK where the type could block; devices and FIFOs are refused (ENXIO). */
enum {
	FILEOP_O_READ = 1,
	FILEOP_O_WRITE = 2,
	FILEOP_O_APPEND = 4,
	FILEOP_O_CREATE = 8,
	FILEOP_O_EXCL = 16,
	FILEOP_O_TRUNC = 32,
	FILEOP_O_DIRECTORY = 64,
	FILEOP_O_STAGE = 128
};

/* SETATTR: which fields are meant. */
enum {
	FILEOP_SET_MODE = 1,
	FILEOP_SET_UID = 2,
	FILEOP_SET_GID = 4,
	FILEOP_SET_SIZE = 8,
	FILEOP_SET_ATIME = 16,
	FILEOP_SET_MTIME = 32,
	FILEOP_SET_ATIME_NOW = 64,
	FILEOP_SET_MTIME_NOW = 128
};

/* attr.flags */
enum {
	/* procfs, sysfs, a device file system: sizes are not what reads give, directories are not to be walked */
	FILEOP_ATTR_SPECIAL = 1
};

struct fileop_attr {
	uint64_t dev; /* st_dev of the sandbox */
	uint64_t ino;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes */
	uint64_t rdev;
	uint32_t mode; /* with the type */
	uint32_t nlink;
	uint32_t uid;
	uint32_t gid;
	uint32_t blksize;
	uint32_t flags;
	struct timespec atime, mtime, ctime;
	/* 0 where the file system has none: tells two files of one inode number apart */
	struct timespec btime;
};

struct fileop_setattr {
	uint32_t valid; /* FILEOP_SET_* */
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint64_t size;
	struct timespec atime, mtime;
};

struct fileop_target {
	uint64_t handle; /* 0: the path */
	const char *path;
	uint64_t dev, ino; /* ino 0: any file */
};

/* --- encoding a request (client) --- */

/* Starts a batch; count is patched by fileop_end_request. */
void fileop_begin_request(
	struct buf *b, const uint8_t client[FILEOP_ID_SIZE], uint64_t seq, uint64_t acked);
/* Starts a call and returns the place that fileop_end_call needs. Between them comes the body. */
size_t fileop_begin_call(struct buf *b, enum fileop_code code, unsigned opflags);
void fileop_end_call(struct buf *b, size_t at);
void fileop_end_request(struct buf *b, uint32_t count);
void fileop_put_target(struct buf *b, const struct fileop_target *t);
void fileop_put_setattr(struct buf *b, const struct fileop_setattr *s);

/* --- decoding a reply (client) --- */
struct fileop_reply {
	uint8_t boot[FILEOP_ID_SIZE];
	uint64_t workspace_ino;
	uint64_t avail; /* bytes that can still be written to /workspace */
	uint32_t count;
};
/* 0, or -EPROTO if this is no reply to a batch of count calls. */
int fileop_get_reply(struct reader *r, uint32_t count, struct fileop_reply *out);
/* The next result: 0 or a negative errno (-EPROTO: malformed); body reads what belongs to it. */
int fileop_get_result(struct reader *r, struct reader *body);
int fileop_get_attr(struct reader *r, struct fileop_attr *a); /* 0 or -EPROTO */

/* --- both ends --- */
void fileop_put_attr(struct buf *b, const struct fileop_attr *a);
int fileop_get_setattr(struct reader *r, struct fileop_setattr *s); /* 0 or -EPROTO */

#endif
