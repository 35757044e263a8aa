/*
 * The languages of the interpreter, see interpreter.h: their names, and what the sandbox must hold to run them. Owns nothing, keeps no
 * answer (a package may be installed at any time), and knows nothing of contexts.
 */
#include "interpreter.h"

#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "commands.h"
#include "text.h"

static const struct {
	const char *name, *other[3], *program, *lack;
} languages[] = {
	[LANGUAGE_PYTHON] = {"python", {"python3"}, "python3",
		"python3 is not installed in the sandbox (package python3)"},
	[LANGUAGE_JAVASCRIPT] = {"javascript", {"js", "node"}, "node",
		"node is not installed in the sandbox (package nodejs)"},
	[LANGUAGE_TYPESCRIPT] = {"typescript", {"ts"}, "node",
		"node is not installed in the sandbox (package nodejs)"},
};

const char *language_name(enum language l)
{
	return languages[l].name;
}

bool language_find(const char *word, enum language *out)
{
	for (int l = 0; l < LANGUAGES; l++) {
		bool same = strcmp(word, languages[l].name) == 0;
		for (int i = 0; i < 3 && languages[l].other[i]; i++)
			same = same || strcmp(word, languages[l].other[i]) == 0;
		if (same) {
			*out = (enum language)l;
			return true;
		}
	}
	return false;
}

/* Where commands look by default. */
static bool is_installed(const char *program)
{
	static const char *const places[] = {
		"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		AUTO_BUF path = BUF_INIT;
		buf_printf(&path, "%s/%s", places[i], program);
		if (!buf_error(&path) && access(path.data, X_OK) == 0)
			return true;
	}
	return false;
}

/* Does node itself know types (22.13 and later), or is there something that takes them away? */
static bool has_typescript(struct server *server)
{
	static const char *const compilers[] = {"/usr/share/nodejs/typescript/package.json",
		"/usr/lib/node_modules/typescript/package.json",
		"/usr/local/lib/node_modules/typescript/package.json"};
	if (is_installed("esbuild"))
		return true;
	for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++)
		if (access(compilers[i], R_OK) == 0)
			return true;
	static const char ask[] =
		"node -p 'typeof require(\"module\").stripTypeScriptTypes' 2>/dev/null";
	struct command_spec spec = {.text = ask, .size = sizeof ask - 1, .timeout_ms = 5000};
	struct command *node;
	AUTO_BUF answer = BUF_INIT;
	if (commands_start(server->commands, &spec, EXISTS_REPLACE, &node, NULL) < 0)
		return false;
	int64_t until = text_monotonic_ms() + 2 * spec.timeout_ms;
	bool yes = command_wait_output(node, SPOOL_BOTH, UINT64_MAX, until) == 0 &&
			   command_output(node, SPOOL_STDOUT, UINT64_MAX, &answer) == 0 && answer.data &&
			   strncmp(answer.data, "function", 8) == 0;
	/* Its record is of no use; one that still runs ends by its time-out. */
	(void)commands_forget(server->commands, node->id);
	commands_put(node);
	return yes;
}

const char *language_lack(struct server *server, enum language l)
{
	if (!is_installed(languages[l].program))
		return languages[l].lack;
	if (l == LANGUAGE_TYPESCRIPT && !has_typescript(server))
		return "TypeScript needs node 22.13 or newer, esbuild or typescript in the sandbox "
			   "(package esbuild)";
	return NULL;
}
