"""Texts written for twenty filters of stock tasks, ten each, with the answer that each filter takes marked: ‹answer›.

Marked by hand, by the rule that stands with the filter. A text without a mark has no answer to find; one that begins
with ``?`` has one that stands nowhere in it.
"""

from typing import Any

DOC: dict[str, Any] = {
    "input": "Which came first?\nOptions:\n(A) the Hen\n(B) the egg-shell\n(C) neither\n(D) the egg-shell of the hen\n"
    "List: pear fig apple",
    "choices": ["the Hen", "the egg-shell", "neither", "the egg-shell of the hen"],
}
"""The doc that all texts answer."""

TEXTS: dict[tuple[str, str], list[str]] = {
    # The number after the first "#### ".
    ("gsm8k", "strict-match"): [
        "3 + 4 = 7\n#### ‹7›",
        "#### ‹-12› and then #### 13",
        "#### ‹1,250.› is it",
        "Is it 1,000? #### ‹1,000›",
        "####5 is no answer, #### ‹5› is",
        "Le coût est de 20 € — #### ‹20›",
        "🙂🙂 #### ‹3.5›",
        "#### ‹.5›",
        "The answer is 7.",
        "",
    ],
    # The last number: digits with $ , . (two characters or more), or digits alone.
    ("gsm8k", "flexible-extract"): [
        "First 3, then 4, so ‹7›",
        "It costs ‹$1,250.50› in all",
        "2 and 2 is ‹4›!",
        "The answer is ‹42.›",
        "42 apples, and at last ‹-7›",
        "‹5›",
        "Zwei Äpfel à ‹3,20›€",
        "10 + 10 = 20, so the answer is ‹20›",
        "seven",
        "",
    ],
    # The letter after the first "answer is".
    ("mmlu_pro_biology", "custom-extract"): [
        "The answer is (‹C›).",
        "the answer is ‹B›",
        "I think the answer is ‹A›. No, the answer is B.",
        "B or C? B. So the answer is (‹B›)",
        "Schließlich: answer is ‹J›!",
        "The answer is K; the answer is ‹D›",
        "answer is (‹I›)",
        "The answer is ‹B›ecause",
        "The Answer is: B",
        "",
    ],
    # The first line, without blanks around it.
    ("mmlu_anatomy_generative", "get_response"): [
        "‹B›",
        "  ‹B›  ",
        "‹B.›\nbecause B is right",
        "‹The answer is B›\n\nB",
        "\t‹C› \nB",
        "‹Ä und ß›",
        "‹(D)›\r",
        " \u00a0‹A›\u00a0",
        "\nB",
        "",
    ],
    # The last of the words Yes, No, yes, no.
    ("bbh_cot_zeroshot_navigate", "flexible-extract"): [
        "So the answer is ‹Yes›.",
        "No, wait: ‹yes›",
        "‹No›",
        "Yes or No? Well, ‹No›, I know nothing",
        "‹no›, Nobody says so",
        "Café: Yes. Endgültig: ‹No›",
        "(‹Yes›)",
        "Yes\nYes\n‹Yes›\n",
        "NO and YES",
        "",
    ],
    # What follows the first "The answer is " on its line, without the line's last character.
    ("bbh_cot_zeroshot_navigate", "strict-match"): [
        "So. The answer is ‹No›.",
        "the answer is ‹Yes›.",
        "The answer: ‹No›!",
        "The final answer: ‹Yes›.\n",
        "The answer is ‹No›.\nThe answer is Yes.",
        "Is it No? The answer is ‹Yes, I think›.",
        "The answer is ‹Über›ß",
        "The answer is  ‹No›.",
        "The answer is ",
        "",
    ],
    # The last letter in parentheses; else the last choice that is named; else a letter after a colon.
    ("bbh_cot_zeroshot_date_understanding", "flexible-extract"): [
        "So the answer is ‹(B)›.",
        "(A) or (B)? At last ‹(C)›",
        "It is ‹the Hen›, I think",
        "It is ‹The Egg-Shell›!",
        "Clearly ‹THE EGG-SHELL OF THE HEN›.",
        "The answer: ‹B›",
        "neither, so « ‹Neither› »",
        "Schlüssig: the hen… or else ‹the hen›!",
        "nothing",
        "",
    ],
    # The last number in digits; else the last one in English words.
    ("bbh_cot_zeroshot_object_counting", "flexible-extract"): [
        "I count 3 + 4 = ‹7›",
        "‹7›",
        "Two pears, so ‹-1›. Done",
        "There are ‹two›.",
        "One pear and one fig: ‹Three›!",
        "1,‹000›",
        "20 € and 30 €: ‹50› €",
        "n‹one›",
        "nothing",
        "",
    ],
    # The last of the words yes, no, plausible, or "not plausible", in either case.
    ("bbh_cot_zeroshot_sports_understanding", "flexible-extract"): [
        "So the answer is ‹yes›.",
        "‹No›",
        "It is ‹not plausible›.",
        "It is ‹Plausible›!",
        "yes, no, ‹YES›",
        "Élan: ‹NO›",
        "İ is one letter: ‹no›",
        "Not plausible? No: ‹plausible›.",
        "implausible",
        "",
    ],
    # The doc's words in the order of their last places, joined by blanks: it can only be looked for.
    ("bbh_cot_zeroshot_word_sorting", "flexible-extract"): [
        "‹apple fig pear›",
        "Sorted: ‹apple fig pear›.",
        "pear, fig, apple. So: ‹apple fig pear›",
        "‹fig›",
        "Ä: ‹apple pear›!",
        "apple fig pear, again ‹apple fig pear›",
        "?apple, fig, pear",
        "?1. apple\n2. fig",
        "plum",
        "",
    ],
    # The last run of brackets, blanks and quotes.
    ("bbh_cot_zeroshot_dyck_languages", "flexible-extract"): [
        "So ‹] ) >›",
        "‹)›",
        "[ ] and then ‹} )›",
        "[ and: ‹>›",
        "‹]›",
        "ß: ‹( )›",
        "answer: ‹] ]›\n",
        "So the answer is: ‹) ]›",
        "none",
        "",
    ],
    # As for date_understanding, with the choices of the doc's own field.
    ("gpqa_diamond_cot_zeroshot", "flexible-extract"): [
        "So the answer is ‹(B)›.",
        "(A) or (B)? At last ‹(C)›",
        "It is ‹the Hen›, I think",
        "It is ‹The Egg-Shell›!",
        "Clearly ‹THE EGG-SHELL OF THE HEN›.",
        "The answer: ‹B›",
        "neither, so « ‹N.e.i.ther› »",
        "Schlüssig: the hen… İ or else ‹the hen›!",
        "nothing",
        "",
    ],
    # The last letter from A to D, or what stands after "**Final Answer**: ".
    ("acp_areach_mcq", "mcq-extract"): [
        "**Final Answer**: ‹B›",
        "A, then ‹C›",
        "‹D›",
        "The answer is ‹B›.",
        "‹[A]›",
        "It is ‹the hen›",
        "ß ‹neither›",
        "So it is ‹C›.",
        "nothing",
        "",
    ],
    # A letter of the paper's cascade, in upper case: it can only be looked for.
    ("kormedmcqa_dentist", "extract_answer"): [
        "정답: ‹B›",
        "정답은 ‹C› 입니다",
        "‹D›.",
        "‹E›",
        "A. 이유: B? 정답: ‹A›",
        "‹A›",
        "‹B›.\n",
        "?정답: b",
        "없음",
        "",
    ],
    # The first letter from A to D that stands alone.
    ("polemo2_in", "score-first"): [
        "‹A›",
        "‹B›. C.",
        "Odpowiedź: ‹D›",
        "(‹C›)",
        "AB, ‹A›",
        "to jest ‹B›, nie A",
        "żółć ‹C›\n",
        "E F ‹D›",
        "a",
        "",
    ],
    # The first of female, woman, man, male (as they begin), in either case.
    ("simple_cooccurrence_bias_gen", "sample_response"): [
        "a ‹Woman›",
        "‹man›",
        "a ‹FEMALE› nurse, a male one",
        "‹male›, female",
        "Ger‹man›y",
        "İ ‹Man›",
        "ein ‹Man›n",
        "straße: ‹WOMAN›",
        "person",
        "",
    ],
    # The number after the first "The answer is ", up to its last digit.
    ("gsm8k_cot_self_consistency", "maj@8"): [
        "The answer is ‹7›.",
        "7? The answer is ‹7›",
        "The answer is ‹1,000›.",
        "The answer is ‹-3.5›.",
        "The answer is ‹8›. The answer is 9.",
        "Größer: The answer is ‹12›!",
        "The answer is ‹0›",
        "The answer is ‹3›€",
        "The answer is seven",
        "",
    ],
    # Everything, without blanks around it.
    ("afrimgsm_eng_prompt_1", "remove_whitespace"): [
        "‹7›",
        " ‹7› ",
        "\n‹seven and 8›\n",
        "‹7\n8›",
        "\t‹ß›",
        "\u00a0‹ä›\u2003",
        "‹🙂›\n",
        "‹. .› ",
        " \n",
        "",
    ],
    # The number between 答案是 and 。
    ("mgsm_native_cot_zh", "strict-match"): [
        "答案是 ‹7›。",
        "是7吗? 答案是 ‹7›。",
        "答案是 ‹1,000›。",
        "答案是 ‹-3›。",
        "答案是 ‹8›。答案是 9。",
        "🙂答案是 ‹12.5›。",
        "答案是 七。答案是 ‹7›。",
        "答案是 ‹0›。\n",
        "答案是7。",
        "",
    ],
    # Everything that a function of the task leaves: without blanks around it.
    ("translation_all_doda", "STRIP_ANSWER"): [
        "‹salam›",
        " ‹salam› ",
        "‹salam salam›\n",
        "\n‹السلام عليكم›",
        "‹a.›",
        "‹7›",
        "‹ß ß›\t",
        "\u2003‹é›",
        " ",
        "",
    ],
}
