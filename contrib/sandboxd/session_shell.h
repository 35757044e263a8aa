/*
 * How a shell is made to run a command and to tell its end. Knows the words, owns no process.
 *
 * The shell is `bash -i` (else `sh -i`) without a terminal: an interactive shell goes back to its input on SIGINT and after errors that
 * would end another (an expansion that fails, a special builtin), and keeps its state. It reads lines from its
 * descriptor 0 and answers on 1; 2 is /dev/null. The text of a command comes in quotes in a file which the shell reads with
 * `.`, as the argument of eval: an open quote is an error of the eval, and no notice of jobs is printed within a
 * file. Its streams are named pipes in the same directory, so that they are the command's own; the shell's are saved close-on-exec
 * by its redirections:
 *
 *   trap - INT; printf '\0B NUMBER\0'; . WORK/text <WORK/in >WORK/out 2>WORK/err; printf '\0R NUMBER STATUS\0' $?; trap '' INT
 *   printf '\0R NUMBER STATUS\0' $?; trap '' INT
 *   cat /proc/self/environ && printf 'OK\0'
 *
 * The first R counts: the second line is for an interrupt, which makes the shell drop the line that it runs. An interrupt while it
 * *reads* a line would drop the part that it has read and run the other, so it is deaf to them but for what is between B and R, and gets
 * none before B was heard: while bash does `trap - INT` it would die of one. (A trap for INT that
 * a command sets therefore lasts as long as the command.) OK ends the exported variables.
 */
#ifndef SANDBOXD_SESSION_SHELL_H
#define SANDBOXD_SESSION_SHELL_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

struct json_object;

enum { SHELL_ENVIRONMENT_MAX = 1 << 20 };

/* The reader of a shell's answers. */
struct shell_answers {
	uint64_t begun;  /* the newest command that was begun */
	uint64_t number; /* the newest whose end was told */
	int status;
	struct buf token;    /* what came of the next answer */
	struct buf incoming; /* variables that are not yet complete */
	struct buf environment;
	uint64_t environment_number; /* the command behind which environment was told */
	bool changed;                /* it is new */
};
void shell_answers_release(struct shell_answers *a);
/* Takes bytes from the shell. 0 or -ENOMEM. */
int shell_answers_add(struct shell_answers *a, const char *p, size_t n);

/* What a new shell is told first. */
const char *shell_greeting(bool bash);
/*
 * The lines for a command; own_cwd: its text changes the directory, which is undone behind it. checker: the bash that looks at WORK/raw first; NULL:
 * there is none. What it finds broken runs in a subshell, where an error does no harm.
 */
void shell_command_lines(
	struct buf *out, const char *work, uint64_t number, bool own_cwd, const char *checker);
/*
 * Does the text have to be looked at first? An unclosed $( makes bash 5.2 write beyond its buffers, and die some lines later.
 */
bool shell_text_is_risky(const char *text);
/* The line that asks for the end again. */
void shell_report_line(struct buf *out, uint64_t number);
/* The content of WORK/text. cwd and env may be NULL; they hold for this command. */
void shell_text(struct buf *out, const char *text, const char *cwd, struct json_object *env);

/*
 * A private directory below spool_dir with the text, the command as it is (raw; NULL: without), stdin (a copy of what the descriptor holds; <0: /dev/null) and the named pipes, of
 * which the reading ends are opened without blocking, and writing ends to hold them open. 0 or a negative errno; nothing is left then.
 */
int shell_work_new(const char *spool_dir, const struct buf *text, const char *raw, int in,
	char **work, int reads[2], int writes[2]);
/* Removes it and frees; *work becomes NULL, which is fine to give as well. */
void shell_work_remove(char **work);

#endif
