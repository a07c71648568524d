import ast
import json
import runpy
import shutil
from pathlib import Path

import pytest

from selfrefine.answers import extraction
from selfrefine.answers.extraction import extract, format_number, is_chain, matches, parse_number, process_results

# Real completions, read by a person: name, text, what `strict` must find, what `legacy` (the last number) must find,
# whether it is a chain. Students are SmolLM2-135M, before and after instruction; the teacher is Qwen2.5-Coder-1.5B.
COMPLETIONS = [
    (
        "student-answer-without-is",
        "Let's move ahead with the answer.\n\n"
        "Let's say that each section of the farm has a land area of 60 acres. To find the total area of the "
        "farm, we multiply the land area of each section by the number of sections.\n\n60 x 5 = 300 acres\n\n"
        "So, the total area of the farm is 300 acres.",
        None,
        "300",
        True,
    ),
    (
        "student-working-in-brackets",
        "The answer to this problem is: 150 acres (5 sections x 60 acres per section x 60 square acres per section).",
        "150",
        "60",
        False,
    ),
    (
        "student-bare",
        "The answer is 250.",
        "250",
        "250",
        False,
    ),
    (
        "student-number-then-comma",
        "The answer is 158, and it takes 158 days to fix 12 watches. This is a classic example of the solution "
        "to the problem by simply applying the formula 3 switches to 12 hats.",
        "158",
        "12",
        False,
    ),
    (
        "student-cut-before-commitment",
        "Step 1: Let's start by setting up a system of equations.\nLet's denote Tom's daily fix as x.\n"
        "We know that, for x, Tom can fix 1 watch every day at the rate of 12.\n"
        "The numbers for days are 1, 1,..., 4, which corresponds to the xy-coordinate of the graph of y = x^2.\n"
        "Let's denote this as x.\n\nStep 2",
        None,
        "2",
        True,
    ),
    (
        "student-number-without-commitment",
        "The number of GB Mike left is 26.",
        None,
        "26",
        False,
    ),
    (
        "student-decimal-like-a-list",
        "The answer is 2.432. There are more than 2 animals working in the lights: 432 fireflies and 297 glow worms.",
        "2.432",
        "297",
        False,
    ),
    (
        "student-repeated-with-equals",
        "The answer is 1250 + 204 = 1440\nThe answer is 1440. The answer there is 1250 + 204 = 1440.",
        "1440",
        "1440",
        True,
    ),
    (
        "student-answer-to-the-question",
        "The answer to the question is 159.5 feet.",
        "159.5",
        "159.5",
        False,
    ),
    (
        "student-last-of-equals",
        "She took 24 pictures at the zoo and 12 at the museum and lost 14 of them. Number of deleted pictures: "
        "14 - 12 = 2\n"
        "She still had 12 photos that she had deleted from her vacation and 2 are still on her shelf. So the "
        "answer is 2 + 1 = 3",
        "3",
        "3",
        True,
    ),
    (
        "student-lines-without-commitment",
        "24 - 12 = 8 pictures\nDebby had 24 - 12 = 8 pictures taken at the zoo\n"
        "Debby had 8 - 12 = 8 pictures taken at the museum",
        None,
        "8",
        True,
    ),
    (
        "student-revised",
        "To solve this problem, we need to consider the given constraints. We're asked to find the total "
        "number of people that can be held at a time, and the additional constraint is that the extra person "
        "needs to be held at each of the seven teacups.\n\n"
        "The answer is simply 11. Since we need 7 additional teacups, we multiply 11 by 7, which gives us an "
        "additional 7. The answer is 7.",
        "7",
        "7",
        True,
    ),
    (
        "student-short-chain",
        "It can hold 7 * 9 = 60 people. So, the answer is 60.",
        "60",
        "60",
        True,
    ),
    (
        "student-which-is-the-answer",
        "The state seal is round, and its diameter is 2 meters, so its diameter must be 2 meters. Since the "
        "state seal is round, the seal's area is an integer.\n\n"
        "The area of a circle is calculated using the formula A = πr², where r is the radius of the circle. "
        "So, A = π × (2²) = 4π = 4π², which is the answer.",
        None,
        "4",
        True,
    ),
    (
        "student-prose-with-one-number",
        "The state seal is a round shape, rounded it down to one decimal place, there are 11 decimal places to "
        "the nearest tenths place. This is not a fraction and is a decimal. It is an integer.",
        None,
        "11",
        True,
    ),
    (
        "student-unit-then-cut",
        "Shelby earned 4 gold stars on average, so in 3 days, she earned 4 * 3 = 12 gold stars.\n"
        "This adds up to 4 gold stars, which is more than Shelby's daily gold star allowance.\n"
        "The answer is 12 Gold Stars.\n\nThe next question occurred in the line of work:\n"
        ": I'm assuming the answer is 12, which is the total number of gold stars Shel",
        "12",
        "12",
        True,
    ),
    (
        "student-sum-then-blank-line",
        "4 + 3 = 7\nShelby earned 7 gold stars today.\n\nThe answer is 7.",
        "7",
        "7",
        True,
    ),
    (
        "student-goes-on-after-answer",
        "We need to find the total number of girls and the total number of boys, or if you prefer we just do "
        "it step by step.\nNumber of boys = Total of boys and girls = 30 * 3 = 90\n"
        "Number of girls = Total of boys and girls\nTotal number of girls = Total of boys + 3 = 90\n"
        "The answer is 90.\nWe can think of it this way: if there were",
        "90",
        "90",
        True,
    ),
    (
        "student-colon-then-talk",
        "The answer is: 3.\n\nThere were 30 boys and 10 girls in total.",
        "3",
        "10",
        False,
    ),
    (
        "student-no-full-stop",
        "356 (leaves) / 112 (excluding leaves blown away) = 10 leaves\n"
        "Mikey's leaves blown away, so there are 10 leaves left.\n\nThe answer is 10",
        "10",
        "10",
        True,
    ),
    (
        "student-empty-words-before",
        "There might be a logic to this puzzle, but a numerical solution is indeed required. The answer is 111.",
        "111",
        "111",
        True,
    ),
    (
        "student-answer-first",
        "The answer is 11.\n\n"
        "There are 25 meatballs on Hayley's plate. Since she has 11 meatballs, that's the total number of "
        "meatballs on Hayley's plate.\n\n"
        "Kirsten didn't steal any of the 11 meatballs, so that's the solution to the problem.",
        "11",
        "11",
        False,
    ),
    (
        "student-commitment-cut-off",
        "Let's analyze the situation: \nHayley had 25 meatballs on her plate. \n"
        "She had 25 * 2 = 50 meatballs on her plate.\nKirsten stole some of her meatballs. \n"
        "She had 50 - 2 = 30 meatballs are left on her plate.\n\nSo the answer is 50 + 30 = 80.\nThe answer is",
        "80",
        "80",
        True,
    ),
    (
        "student-decimal",
        "It takes Hayley 25 meatballs to create 11 meatballs.\nSo, 11 / 25 = 0.8 / 2 = 0.2.\n"
        "So, Hayley has twice the number of meatballs she lost to Kirsten.\nThe answer is 0.2.",
        "0.2",
        "0.2",
        True,
    ),
    (
        "student-power-in-the-working",
        "There are 2^32 - 1 pots. \nEach pot has 32 flowers, so there are 2*32 = 64 flowers in total.\n"
        "The answer is 64.",
        "64",
        "64",
        True,
    ),
    (
        "student-trailing-zero",
        "The answer is: 32.50",
        "32.5",
        "32.5",
        False,
    ),
    (
        "student-answer-first-then-lines",
        "The answer is 12.\n\n12 is the total number of boys and 2 girls are the boys. The total number of girls is 6.",
        "12",
        "6",
        False,
    ),
    (
        "student-repeated",
        "A fast food restaurant had ninety-nine hotdogs and sold them out of ninety-nine hotdogs. So, the "
        "answer is 99. The answer is 99.",
        "99",
        "99",
        True,
    ),
    (
        "student-cut-inside-number",
        "To solve this problem, you need to first calculate the total number of hotdogs sold and the number of "
        "hotdogs that didn't sell.\n\nSelling a total of 99 * 100 = 9900 hotdogs.\n"
        "After selling a total of 97 * 100 = 9700 hotdogs.\nSo, the answer is 9900 + 9700 = 18",
        "18",
        "18",
        True,
    ),
    (
        "student-power",
        "The answer is 7^3. This is because the square of 7 inches is equal to 7 inches, which is the area of "
        "a square with sides of 7 inches.",
        None,
        "7",
        False,
    ),
    (
        "student-words-only",
        "The answer is a square tile.",
        None,
        None,
        False,
    ),
    (
        "student-quoted-sentence",
        'You\'re right, the answer is "the perimeter is 10 inches wide."',
        "10",
        "10",
        False,
    ),
    (
        "student-inside-a-long-sentence",
        "The number of each type of towel is equal to the number of bags of each type of towel, and there is "
        "only one bag of each type of towel to start, so the answer is 1.",
        "1",
        "1",
        True,
    ),
    (
        "student-cut-after-is",
        "Let's start by considering the total number of ounces of cheese needed for 7 burritos and 1 taco. We "
        "can say that 4 x 1 = 4 ounces of cheese are needed for 7 burros and 9 ounces for 1 taco.\n\n"
        "Now, we know that 4 ounces of cheese are needed for 2 of the burros and 9 ounces for 1 of the taco. \n\n"
        "The answer is",
        None,
        "1",
        True,
    ),
    (
        "instructed-numbers-in-words",
        "Mike had twenty-six GB of space on his disk drive, and he would have left twenty-six GB if he had "
        "only used twenty-eight GB.",
        None,
        None,
        False,
    ),
    (
        "instructed-decimal-before-full-stop",
        "Tom plans to fix 158 watches at the rate of 12 watches per day. To find out how many days he needs to "
        "fix the watches, we divide the number of watches by the rate per day: 158 / 12 = 14.5 days. The "
        "answer is 14.5.",
        "14.5",
        "14.5",
        True,
    ),
    (
        "instructed-multiple-of-pi",
        "The state seal is round, so it has a diameter of 2 meters. The area of a circle is πr^2, where r is "
        "the diameter of the circle. The area of the capitol building is π(2)^2 = 4π square meters. The seal's "
        "area is 4π square meters. The answer is 4π.",
        None,
        "4",
        True,
    ),
    (
        "instructed-money",
        "The money was split evenly, so each person got $32.50. The answer is 32.50.",
        "32.5",
        "32.5",
        True,
    ),
    (
        "instructed-no-commitment",
        "To find the least number of total pins that Sam and Carlos could have each knocked down, we need to "
        "consider the total number of pins. Sam knocked down 8 pins, and Carlos knocked down 9 pins. The total "
        "number of pins is 8 + 9 = 17.\n\n"
        "The least number of total pins that Sam and Carlos could have each knocked down is 17.",
        None,
        "17",
        True,
    ),
    (
        "teacher-boxed-after-answer-is",
        "To find the cost of 6 packs of paper, we first need to determine the cost of one pack. We know that 3 "
        "packs cost $3.87. Therefore, the cost of one pack is:\n\\[ \\frac{3.87}{3} = 1.29 \\]\n"
        "Now, we can find the cost of 6 packs by multiplying the cost of one pack by 6:\n"
        "\\[ 1.29 \\times 6 = 7.74 \\]\nThe answer is \\(\\boxed{7.74}\\).",
        "7.74",
        "7.74",
        True,
    ),
    (
        "teacher-cut-list",
        "To find out how many students were in each bus, we need to follow these steps:\n\n"
        "1. Calculate the total number of students who traveled in cars.\n"
        "2. Subtract the number of students in cars from the total number of students to find out how many "
        "students traveled in buses.\n"
        "3. Divide the number of students in buses by the number of buses to find out how many students were "
        "in each bus.\n\nLet's do the calculations:\n\n1. Total number of students = 396\n"
        "2. Number of students in cars = 4\n3. Number of students in buses = 396 - 4 = 3",
        None,
        "3",
        True,
    ),
    (
        "teacher-no-stop-before-next-sentence",
        "The depth of the water is 10 times Dean's height. Since Dean is 6 feet tall, the depth of the water "
        "is 10 * 6 = 60 feet. The answer is 60 The depth of the water is 60 feet.",
        "60",
        "60",
        True,
    ),
    (
        "teacher-days",
        "Isabel received a total of 16 + 5 = 21 pieces of candy. If she eats 3 pieces a day, the candy will "
        "last her 21 ÷ 3 = 7 days. The answer is 7 days.",
        "7",
        "7",
        True,
    ),
    (
        "teacher-abbreviated-title",
        "Mrs. Sheridan needs 32 more cats to have 43 cats.",
        None,
        "43",
        False,
    ),
    (
        "teacher-fraction",
        "The total ratio parts are 3 + 4 = 7. Megan's share is 24 marbles, which is 24/7 of the total. "
        "Therefore, Steven's share is 7 - 24/7 = 12/7 marbles. The answer is 12/7.",
        "12/7",
        "12/7",
        True,
    ),
    (
        "teacher-therefore-the-answer",
        "First, we need to find out how many students were left after the cars took their share. We do this by "
        "subtracting the number of students in cars from the total number of students: 396 - 4 = 392.\n"
        "Next, we need to divide the remaining students by the number of buses to find out how many students "
        "were in each bus. We do this by dividing 392 by 7: 392 ÷ 7 = 56.\nTherefore, the answer is 56.",
        "56",
        "56",
        True,
    ),
    (
        "teacher-unfinished-sum",
        "Connie started with 593 + 183 marbles.",
        None,
        "183",
        False,
    ),
    (
        "teacher-angle-brackets",
        "To determine how many boxes Tom needs to sell, we divide the total number of chocolate bars by the "
        "number of bars per box:\n849 ÷ 5 = 169.8\n"
        "Since Tom can't sell a fraction of a box, he will need to sell 170 boxes to have at least 849 "
        "chocolate bars. The answer is <170>.",
        "170",
        "170",
        True,
    ),
    (
        "teacher-grams",
        "The weight of one diamond is 20 g. The weight of one jade is 15 g. The answer is 5 g.",
        "5",
        "5",
        True,
    ),
    (
        "teacher-dollars-in-the-working",
        "The Greene family spent $45 on admission tickets and $13 less than that on food, which is $45 - $13 = "
        "$32. Therefore, the Greene family spent a total of $45 + $32 = $77 in all. The answer is 77.",
        "77",
        "77",
        True,
    ),
    (
        "teacher-fraction-in-the-working",
        "The total number of notecards you had is 12. Since 3/4 of these notecards were turned in, the number "
        "of notecards completed is 3/4 * 12 = 9. The answer is 9.",
        "9",
        "9",
        True,
    ),
    (
        "teacher-can-answer-is",
        "The total number of questions on the math test is 45. Steve can answer 38 questions. The difference "
        "between the total number of questions and the number Steve can answer is 45 - 38 = 7. The answer is 7.",
        "7",
        "7",
        True,
    ),
    (
        "teacher-cut-after-first-digit",
        "The ratio of votes for candidate A to candidate B is 2:1. This means for every 2 votes for candidate "
        "A, there is 1 vote for candidate B. If candidate A received 14 votes, we can set up the following "
        "proportion to find the number of votes for candidate B:\n14 votes / 2 = x votes / 1\n"
        "Solving for x, we get:\nx = 7\n"
        "Therefore, candidate B received 7 votes. The combined amount of votes candidate A and candidate B "
        "received is:\n14 votes + 7 votes = 21 votes\nThe answer is 2",
        "2",
        "2",
        True,
    ),
    (
        "teacher-dollars-without-commitment",
        "Maria has $17.\nHer sister has $17 * 2 = $34.\nTogether, they have $17 + $34 = $51.\nThe coat costs $80.\n"
        "They need $80 - $51 = $29 more.",
        None,
        "29",
        True,
    ),
    (
        "teacher-box-left-open",
        "Debby makes 67 pancakes in total. She adds blueberries to 20 of them and bananas to 24 of them. To "
        "find out how many plain pancakes there are, we need to subtract the number of blueberry and banana "
        "pancakes from the total number of pancakes. \n\n"
        "First, we add the number of blueberry and banana pancakes:\n\\[ 20 + 24 = 44 \\]\n\n"
        "Next, we subtract this sum from the total number of pancakes:\n\\[ 67 - 44 = 23 \\]\n\n"
        "So, the number of plain pancakes is \\(\\boxed{23",
        "23",
        "23",
        True,
    ),
    (
        "teacher-clock-times",
        "Emma's mom will be home from work at 4:12 p.m. + 70 minutes = 4:42 p.m.\n"
        "Emma's gymnastics lessons start at 6:00 p.m.\n"
        "The time between 4:42 p.m. and 6:00 p.m. is 1 hour and 18 minutes.\nThe answer is 1.18.",
        "1.18",
        "1.18",
        True,
    ),
    (
        "teacher-zero",
        "To determine how many more students need to sign up, we need to divide the total number of students "
        "by the number of teams. \n935 ÷ 6 = 155 remainder 5\n"
        "This means that 155 teams can be formed with 5 students each, and there will be 5 students left over. \n"
        "To find out how many more students need to sign up, we subtract the number of students already signed "
        "up from the total number of students:\n935 - 935 = 0\nTherefore, the answer is 0.",
        "0",
        "0",
        True,
    ),
    (
        "teacher-thousands-without-commitment",
        "There are 5,583 fish in total.",
        None,
        "5583",
        False,
    ),
    (
        "teacher-thousands",
        "To find the original number of snails, we need to add the number of snails that were removed to the "
        "number of snails that remained. \n3,482 snails were removed, and 8,278 snails remained.\n"
        "The original number of snails is 3,482 + 8,278 = 11,760.\nThe answer is 11,760.",
        "11760",
        "11760",
        True,
    ),
    (
        "teacher-hours-and-minutes",
        "Mrs. Hilt spent 1 hour and 30 minutes on Saturday morning and 45 minutes on Saturday afternoon. To "
        "find the total time spent, we add these two times together:\n"
        "1 hour and 30 minutes + 45 minutes = 1 hour and 75 minutes\nThe answer is 1 hour and 75 minutes.",
        None,
        "75",
        True,
    ),
]


def column(position: int) -> list:
    return [pytest.param(row[1], row[position], id=row[0]) for row in COMPLETIONS]


@pytest.mark.parametrize(("text", "expected"), column(2))
def test_strict_number_of_real_completions(text, expected):
    assert extract(text, "math", []) == expected


@pytest.mark.parametrize(("text", "expected"), column(3))
def test_legacy_number_of_real_completions(text, expected):
    assert extract(text, "math", [], "legacy") == expected


@pytest.mark.parametrize(("text", "expected"), column(4))
def test_chain_of_real_completions(text, expected):
    assert is_chain(text) is expected


WRITTEN_NUMBERS = [
    ("The answer is **170**.", "170"),
    ("**Answer:** 12", "12"),
    ("**Answer**: 12", "12"),
    ("Answer = 12", "12"),
    ("THE ANSWER IS 12.", "12"),
    ("She needs 3 + 4 = 7 apples.\n#### 7", "7"),
    ("#### 1,234", "1234"),
    ("It is \\boxed{12}.", "12"),
    ("\\boxed{x = 5}", "5"),
    ("The answer is $1,234.50.", "1234.5"),
    ("The answer is US$5.", "5"),
    ("The answer is 60%.", "60"),
    ("The answer is -5.", "-5"),
    ("The answer is −5.", "-5"),
    ("The answer is .5", "0.5"),
    ("The answer is 1/2.", "0.5"),
    ("The answer is 1/3 of the cake.", "1/3"),
    ("The answer is 10 / 4 = 2.5.", "2.5"),
    ("The answer is 5 (2 + 3 = 5).", "5"),
    ("The answer is\n\n12", "12"),
    ("The answer is 12", "12"),
    ("The answer is 3. No, wait! The answer is 4. That is all: 100%.", "4"),
    ("The answer is\n\\[\n12\n\\]", "12"),
    ("The answer is twelve.", None),
    ("The answer is item3.", None),
    ("She has 12 apples.", None),
    ("We look for the answer among 12 numbers.", None),
    ("", None),
    ("The answer isn't 5 but 6.", None),
    ("The answer is 3 1/2.", "3.5"),
    ("The answer is \\(\\frac{3}{4}\\).", "0.75"),
    ("The answer is 593 + 183.", None),
    ("The answer is 5, because 2 + 2 = 4 is too few.", "5"),
    ("The answer is:\n\n- 5 apples", "5"),
]


@pytest.mark.parametrize(("text", "expected"), WRITTEN_NUMBERS)
def test_strict_number(text, expected):
    assert extract(text, "math", []) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 3, as 1 + 2 is. See page 40.", "40"),
        ("$4.50 and then 1,250", "1250"),
        ("Scores: 10-3", "3"),
        ("It is -3", "-3"),
        ("version2", None),
        ("none", None),
        ("He has 13 - 8", "8"),
    ],
)
def test_legacy_number_is_the_last_one(text, expected):
    assert extract(text, "math", [], "legacy") == expected


CHOICES = ["library", "bank", "department store", "mall", "new york"]
LETTERS = [
    ("The answer is B.", "B", "B"),
    ("The answer is (B).", "B", "B"),
    ("The answer is: (C)", "C", "C"),
    ("The answer is B) bank.", "B", "B"),
    ("The answer is B, because A is wrong.", "B", "B"),
    ("The answer is B, not A.", "B", "B"),
    ("The answer is\nB", "B", "B"),
    ("The answer is A. No: the answer is D.", "D", "A"),
    ("A library lends, a bank pays. The answer is B.", "B", "B"),
    ("The answer is **B**.", "B", None),
    ("The answer is [B]", "B", None),
    ("The answer is 'B'.", "B", None),
    ("The answer is option D.", "D", None),
    ("The answer is the letter D.", "D", None),
    ("The answer is indeed B", "B", None),
    ("Answer: B", "B", None),
    ("#### B", "B", None),
    ("\\boxed{B}", "B", None),
    ("The answer is E.", "E", None),
    ("The answer is (E)", "E", None),
    ("The answer is E) new york", "E", "E"),
    ("The answer is F.", None, None),
    ("The answer is bank", "B", "B"),
    ("The answer is a bank.", "B", "B"),
    ("The answer is the Library!", "A", "A"),
    ('The answer is "mall".', "D", "D"),
    ("The answer is new york", "E", "E"),
    ("The answer is librry", None, "A"),
    ("The answer is a tank", None, "B"),
    ("The answer is A or B.", None, "A"),
    ("The answer is (A) or (B).", None, "A"),
    ("The answer is A and B.", None, "A"),
    ("The answer is A, B.", None, "A"),
    ("The answer is A/B.", None, "A"),
    ("The answer is either A or B.", None, None),
    ("The answer is not B.", None, None),
    ("The answer is C. Hmm, the answer is A or B.", None, "C"),
    ("The answer is B's.", None, "B"),
    ("The answer is Bread.", None, "B"),
    ("B", None, None),
    ("I choose (B)", None, None),
    ("The answer is", None, None),
    ("", None, None),
    ("The answer is \\(\\boxed{\\text{B}}\\).", "B", None),
    ("**Answer**: B", "B", None),
    ("The answer is (b).", "B", None),
    ("Answer: A bank", "B", None),
]


@pytest.mark.parametrize(("text", "expected"), [(text, strict) for text, strict, _ in LETTERS])
def test_strict_label(text, expected):
    assert extract(text, "choice", CHOICES) == expected


@pytest.mark.parametrize(("text", "expected"), [(text, legacy) for text, _, legacy in LETTERS])
def test_legacy_label(text, expected):
    assert extract(text, "choice", CHOICES, "legacy") == expected


@pytest.mark.parametrize(
    ("choices", "text", "expected"),
    [
        (["yes", "no"], "The answer is B.", "B"),
        (["yes", "no"], "The answer is C.", None),
        (["to school", "at home"], "The answer is at home.", "B"),
        (["in bed", "In bed."], "The answer is in bed.", None),
        (["a bank", "the bank"], "The answer is a bank.", None),
        (["12", "15"], "The answer is 15", "B"),
    ],
)
def test_strict_label_knows_the_options_of_its_question(choices, text, expected):
    assert extract(text, "choice", choices) == expected


# Two of the five letters differ: 2 x 3 matching / 10 letters = 0.6; one letter more on one side: 6 / 11 < 0.6.
@pytest.mark.parametrize(("tail", "expected"), [("abcxy", "A"), ("abcxyz", None)])
def test_legacy_fuzzy_match_begins_at_six_tenths(tail, expected):
    assert extract(f"The answer is {tail}", "choice", ["abcde", "fghij"], "legacy") == expected


def test_unknown_extractor_is_refused():
    with pytest.raises(ValueError, match="lax.*strict, unanimous, legacy"):
        extract("The answer is 1.", "math", [], "lax")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two three four five the answer is B.", True),
        ("One two three four five answer is B.", False),
        ("One two three four five. The answer is B.", True),
        ("One two three four. The answer is B.", False),
        ("The answer is B. One two three four five six seven eight.", False),
        ("It is a bank. It pays.", True),
        ("It is a bank", False),
        ("It costs $3.50", False),
        ("", False),
        ("So the final answer is: **\\boxed{5}**", False),
    ],
)
def test_chain_needs_words_before_the_last_commitment_or_two_sentences(text, expected):
    assert is_chain(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,200", "1200"),
        ("$3.50", "3.5"),
        ("$ 3.50", "3.5"),
        ("5/2", "2.5"),
        ("5 / 2", "2.5"),
        ("-7", "-7"),
        ("−7", "-7"),
        ("12.", "12"),
        ("2/6", "1/3"),
        ("0.10", "0.1"),
        ("1/0", None),
        ("12 apples", None),
        ("5%", None),
        ("", None),
        ("1 1/2", "1.5"),
        ("12 30", None),
    ],
)
def test_number_is_read_and_written_in_canonical_form(text, expected):
    number = parse_number(text)
    assert (number is None and expected is None) or format_number(number) == expected


@pytest.mark.parametrize(
    ("found", "target", "kind", "expected"),
    [
        ("B", "B", "choice", True),
        ("B", "A", "choice", False),
        (None, "A", "choice", False),
        ("12", "12", "math", True),
        ("12.0", "12", "math", True),
        ("0.333333333", "1/3", "math", True),
        ("0.3333", "1/3", "math", False),
        ("1000001", "1000000", "math", True),
        ("1000002", "1000000", "math", False),
        ("-12", "12", "math", False),
        (None, "12", "math", False),
    ],
)
def test_match_with_the_target(found, target, kind, expected):
    assert matches(found, target, kind) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "We add the two and two of them. The answer is 4.",
            {"strict": 1, "unanimous": 1, "legacy": 1, "committed": 1, "chain": 1},
        ),
        ("The answer is 4, not 5", {"strict": 1, "unanimous": 1, "legacy": 0, "committed": 1, "chain": 0}),
        ("It is 4", {"strict": 0, "unanimous": 0, "legacy": 1, "committed": 0, "chain": 0}),
    ],
)
def test_scores_for_lm_eval(text, expected):
    assert process_results({"kind": "math", "choices": [], "answer": "4"}, [text]) == expected


def test_module_imports_nothing_of_this_repository_since_exported_tasks_carry_a_copy():
    tree = ast.parse(Path(extraction.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # Beside the standard library only datasets, which lm-eval brings, and math-verify in studies that name it.
    assert imported == {
        *("collections.abc", "difflib", "json", "re", "fractions", "pathlib", "typing", "unicodedata"),
        *("importlib.util", "sys"),
        *("datasets", "math_verify"),
    }
    assert not {"datasets", "math_verify"} & {name for node in tree.body for name in _names_imported(node)}


def _names_imported(node: ast.stmt) -> list[str]:
    """The modules that a statement imports outside of functions."""
    return [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []


def test_documents_are_those_beside_the_copy_wherever_it_lies(tmp_path, monkeypatch):
    folder = tmp_path / "a task"
    folder.mkdir()
    shutil.copyfile(extraction.__file__, folder / "answers.py")
    rows = [{"id": "1", "question": "Näh?", "choices": ["a", "b"]}, {"id": "2", "question": "Why?", "choices": []}]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(folder / "answers.py"))["documents"](version=1.0)
    assert {split: list(data) for split, data in found.items()} == {"test": rows}
